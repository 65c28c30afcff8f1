// SPDX-License-Identifier: Apache-2.0
// JavaMail with the properties that its documentation names.
import java.util.Properties;
import javax.mail.Message;
import javax.mail.Session;
import javax.mail.Transport;
import javax.mail.internet.InternetAddress;
import javax.mail.internet.MimeMessage;

public class JavaMailClient {
    public static void main(String[] args) throws Exception {
        String protocol = System.getenv("MAIL_TLS").equals("implicit") ? "smtps" : "smtp";
        Properties p = new Properties();
        p.put("mail.transport.protocol", protocol);
        p.put("mail." + protocol + ".host", System.getenv("MAIL_HOST"));
        p.put("mail." + protocol + ".port", System.getenv("MAIL_PORT"));
        p.put("mail." + protocol + ".auth", "true");
        p.put("mail." + protocol + ".ssl.checkserveridentity", "true");
        p.put("mail.smtp.starttls.enable", "true");
        p.put("mail.smtp.starttls.required", "true");
        Session session = Session.getInstance(p);
        MimeMessage m = new MimeMessage(session);
        m.setFrom(new InternetAddress(System.getenv("MAIL_FROM")));
        m.addRecipients(Message.RecipientType.TO,
                        System.getenv("MAIL_TO1") + ", " + System.getenv("MAIL_TO2"));
        m.setSubject("Selamat pagi \u2600 JavaMail", "UTF-8");
        m.setText("Isi pesan: \u00e4 \u00f6 \u00fc \u2600\n", "UTF-8");
        Transport t = session.getTransport(protocol);
        t.connect(System.getenv("MAIL_USER"), System.getenv("MAIL_PASSWORD"));
        t.sendMessage(m, m.getAllRecipients());
        t.close();
    }
}
