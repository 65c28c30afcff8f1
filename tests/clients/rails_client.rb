# SPDX-License-Identifier: Apache-2.0
# Rails' ActionMailer with the smtp_settings of config/environments/production.rb.
require "action_mailer"

implicit = ENV["MAIL_TLS"] == "implicit"
ActionMailer::Base.delivery_method = :smtp
ActionMailer::Base.smtp_settings = {
  address: ENV["MAIL_HOST"],
  port: ENV["MAIL_PORT"].to_i,
  user_name: ENV["MAIL_USER"],
  password: ENV["MAIL_PASSWORD"],
  authentication: :plain,
  enable_starttls_auto: !implicit,
  tls: implicit
}

class Greeting < ActionMailer::Base
  def hello
    headers["X-Idempotency-Key"] = ENV["MAIL_KEY"] if ENV["MAIL_KEY"]
    attachments["a.bin"] = File.binread(ENV["MAIL_FILE"]) if ENV["MAIL_FILE"]
    mail(from: ENV["MAIL_FROM"], to: [ENV["MAIL_TO1"], ENV["MAIL_TO2"]],
         subject: ENV["MAIL_SUBJECT"]) do |format|
      format.text { render plain: ENV["MAIL_BODY"] }
    end
  end
end
Greeting.hello.deliver_now
