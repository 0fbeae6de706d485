package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func loadMail(t *testing.T, text string) (*Config, error) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"config.yml": text, "secret": "s3cret-of-mail\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return Load(filepath.Join(dir, "config.yml"))
}

func TestAMailServerIsReadAndItsPasswordIsNotShown(t *testing.T) {
	cfg, err := loadMail(t, "mail: {host: mail.example.com, from: 'Shop <s@example.com>', username: backout, password_file: secret}\n")
	if err != nil {
		t.Fatal(err)
	}
	m := cfg.Mail
	if m.Port != 587 || m.TLS != "starttls" || m.Password.Reveal() != "s3cret-of-mail" || m.Username != "backout" {
		t.Errorf("read %+v", m)
	}
	cfg, err = loadMail(t, "mail: {host: 127.0.0.1, port: 2525, from: s@example.com, tls: none}\n")
	if err != nil || cfg.Mail.Port != 2525 || cfg.Mail.Username != "" || cfg.Mail.Same(m) || !m.Same(m) {
		t.Errorf("read %+v: %v", cfg, err)
	}
}

func TestAMailServerThatIsWrongIsRefusedWithItsLine(t *testing.T) {
	for text, want := range map[string]string{
		"{from: s@example.com}":                                                                                 ":2: mail needs host and from",
		"{host: h.example, from: s@example.com, username: u}":                                                   ":2: mail needs both username and password_file",
		"{host: h.example, from: s@example.com, tls: none}":                                                     ":2: mail: without TLS anyone",
		"{host: 127.0.0.1, from: s@example.com, tls: none, username: u, password_file: secret}":                 ":2: mail: a password needs TLS",
		"{host: h.example, from: s@example.com, tls: ssl}":                                                      `unknown tls mode "ssl"`,
		"{host: h.example, from: s@example.com, port: 70000}":                                                   "from 1 to 65535",
		"{host: h.example, from: nobody}":                                                                       `invalid mail address "nobody"`,
		"{host: 'https://h.example', from: s@example.com}":                                                      "invalid host name",
		"{host: h.example, from: s@example.com, username: u, password_file: missing}":                           "mail.password_file:",
		"{host: h.example, from: s@example.com, password: hunter2}":                                             `unknown key "password"`,
		"{host: h.example, from: s@example.com, username: u, password_file: secret, tls: starttls, port: none}": "mail.port",
	} {
		_, err := loadMail(t, "external_url: https://b.example\nmail: "+text+"\n")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "config.yml:2:") || !strings.Contains(err.Error(), "; try: ") {
			t.Errorf("%s: got %v, want %q with its line and a try", text, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: the error tells a secret: %v", text, err)
		}
	}
}
