// SPDX-License-Identifier: Apache-2.0

// net/smtp of Go: SendMail for STARTTLS, a client over tls.Dial for port 465.
package main

import (
	"crypto/tls"
	"fmt"
	"log"
	"net/smtp"
	"os"
)

func main() {
	host, from := os.Getenv("MAIL_HOST"), os.Getenv("MAIL_FROM")
	addr := host + ":" + os.Getenv("MAIL_PORT")
	to := []string{os.Getenv("MAIL_TO1"), os.Getenv("MAIL_TO2")}
	auth := smtp.PlainAuth("", os.Getenv("MAIL_USER"), os.Getenv("MAIL_PASSWORD"), host)
	msg := []byte(fmt.Sprintf("From: %s\r\nTo: %s, %s\r\nSubject: =?utf-8?B?4piA?= Go\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\n\r\nIsi pesan: ä ö ü ☀\r\n", from, to[0], to[1]))
	if os.Getenv("MAIL_TLS") != "implicit" {
		if err := smtp.SendMail(addr, auth, from, to, msg); err != nil {
			log.Fatal(err)
		}
		return
	}
	conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: host})
	if err != nil {
		log.Fatal(err)
	}
	c, err := smtp.NewClient(conn, host)
	for _, step := range []func() error{
		func() error { return err },
		func() error { return c.Auth(auth) },
		func() error { return c.Mail(from) },
		func() error { return c.Rcpt(to[0]) },
		func() error { return c.Rcpt(to[1]) },
		func() error {
			w, err := c.Data()
			if err == nil {
				_, err = w.Write(msg)
			}
			if err == nil {
				err = w.Close()
			}
			return err
		},
		func() error { return c.Quit() },
	} {
		if err := step(); err != nil {
			log.Fatal(err)
		}
	}
}
