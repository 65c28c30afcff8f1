// SPDX-License-Identifier: Apache-2.0
// nodemailer with a pool: messages one after the other over a connection that stays open.
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

async function main() {
    for (let i = 0; i < Number(env.MAIL_COUNT); i++) {
        await transport.sendMail({
            from: env.MAIL_FROM,
            to: [env.MAIL_TO1, env.MAIL_TO2],
            subject: env.MAIL_SUBJECT,
            text: env.MAIL_BODY,
            headers: env.MAIL_KEY ? { "X-Idempotency-Key": env.MAIL_KEY } : {},
            attachments: env.MAIL_FILE ? [{ path: env.MAIL_FILE }] : [],
        });
    }
    transport.close();
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
