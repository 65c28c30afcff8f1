// SPDX-License-Identifier: Apache-2.0

// net/smtp of Go: SendMail for STARTTLS, a client over tls.Dial for port 465.
package main

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"log"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/smtp"
	"net/textproto"
	"os"
	"strings"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func message(from string, to []string) []byte {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\nSubject: %s\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: multipart/mixed; boundary=%s\r\n\r\n", from, strings.Join(to, ", "),
		mime.BEncoding.Encode("utf-8", os.Getenv("MAIL_SUBJECT")), w.Boundary())

	text, err := w.CreatePart(textproto.MIMEHeader{
		"Content-Type":              {"text/plain; charset=utf-8"},
		"Content-Transfer-Encoding": {"quoted-printable"},
	})
	must(err)
	qp := quotedprintable.NewWriter(text)
	_, err = qp.Write([]byte(os.Getenv("MAIL_BODY")))
	must(err)
	must(qp.Close())

	octets, err := os.ReadFile(os.Getenv("MAIL_FILE"))
	must(err)
	file, err := w.CreatePart(textproto.MIMEHeader{
		"Content-Type":              {"application/octet-stream"},
		"Content-Transfer-Encoding": {"base64"},
		"Content-Disposition":       {"attachment; filename=a.bin"},
	})
	must(err)
	for line := base64.StdEncoding.EncodeToString(octets); line != ""; {
		n := 76
		if len(line) < n {
			n = len(line)
		}
		fmt.Fprintf(file, "%s\r\n", line[:n])
		line = line[n:]
	}
	must(w.Close())
	return b.Bytes()
}

func main() {
	host, from := os.Getenv("MAIL_HOST"), os.Getenv("MAIL_FROM")
	addr := host + ":" + os.Getenv("MAIL_PORT")
	to := []string{os.Getenv("MAIL_TO1"), os.Getenv("MAIL_TO2")}
	auth := smtp.PlainAuth("", os.Getenv("MAIL_USER"), os.Getenv("MAIL_PASSWORD"), host)
	msg := message(from, to)
	if os.Getenv("MAIL_TLS") != "implicit" {
		must(smtp.SendMail(addr, auth, from, to, msg))
		return
	}
	conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: host})
	must(err)
	c, err := smtp.NewClient(conn, host)
	must(err)
	must(c.Auth(auth))
	must(c.Mail(from))
	for _, address := range to {
		must(c.Rcpt(address))
	}
	w, err := c.Data()
	must(err)
	_, err = w.Write(msg)
	must(err)
	must(w.Close())
	must(c.Quit())
}
