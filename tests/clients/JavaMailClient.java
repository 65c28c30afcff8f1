// SPDX-License-Identifier: Apache-2.0
// JavaMail with the properties that its documentation names.
import java.io.File;
import java.util.Properties;
import javax.mail.Message;
import javax.mail.Session;
import javax.mail.Transport;
import javax.mail.internet.InternetAddress;
import javax.mail.internet.MimeBodyPart;
import javax.mail.internet.MimeMessage;
import javax.mail.internet.MimeMultipart;

public class JavaMailClient {
    static String env(String name) {
        return System.getenv("MAIL_" + name);
    }

    static MimeMultipart content() throws Exception {
        MimeBodyPart text = new MimeBodyPart();
        text.setText(env("BODY"), "UTF-8");
        MimeBodyPart file = new MimeBodyPart();
        file.attachFile(new File(env("FILE")));
        return new MimeMultipart(text, file);
    }

    public static void main(String[] args) throws Exception {
        String protocol = env("TLS").equals("implicit") ? "smtps" : "smtp";
        Properties p = new Properties();
        p.put("mail." + protocol + ".host", env("HOST"));
        p.put("mail." + protocol + ".port", env("PORT"));
        p.put("mail." + protocol + ".auth", "true");
        p.put("mail." + protocol + ".ssl.checkserveridentity", "true");
        p.put("mail.smtp.starttls.enable", "true");
        p.put("mail.smtp.starttls.required", "true");
        Session session = Session.getInstance(p);
        MimeMessage m = new MimeMessage(session);
        m.setFrom(new InternetAddress(env("FROM")));
        m.addRecipients(Message.RecipientType.TO, env("TO1") + ", " + env("TO2"));
        m.setSubject(env("SUBJECT"), "UTF-8");
        if (env("KEY") != null)
            m.setHeader("X-Idempotency-Key", env("KEY"));
        if (env("FILE") != null)
            m.setContent(content());
        else
            m.setText(env("BODY"), "UTF-8");
        try (Transport t = session.getTransport(protocol)) {
            t.connect(env("USER"), env("PASSWORD"));
            t.sendMessage(m, m.getAllRecipients());
        }
    }
}
