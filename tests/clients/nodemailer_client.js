// SPDX-License-Identifier: Apache-2.0
// nodemailer with a pool: several messages over few connections, which stay open in between.
"use strict";
const nodemailer = require("nodemailer");

const env = process.env;
const transport = nodemailer.createTransport({
    pool: true,
    host: env.MAIL_HOST,
    port: Number(env.MAIL_PORT),
    secure: env.MAIL_TLS === "implicit",
    requireTLS: true,
    auth: { user: env.MAIL_USER, pass: env.MAIL_PASSWORD },
});

transport.sendMail({
    from: env.MAIL_FROM,
    to: [env.MAIL_TO1, env.MAIL_TO2],
    subject: "Selamat pagi ☀ nodemailer",
    text: "Isi pesan: ä ö ü ☀\n",
    attachments: [{ filename: "a.bin", content: "attached octets" }],
}).then(() => transport.close(), (error) => {
    console.error(error);
    process.exit(1);
});
