package mail

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	netmail "net/mail"

	"github.com/locotoki/backout/remediation"
)

const password = "correct-horse-battery"

// server is Debian's aiosmtpd with a mailbox on loopback.
type server struct {
	t             *testing.T
	dir, password string
	port          int
	tls           TLS
	roots         *x509.CertPool
	cmd           *exec.Cmd
	said          bytes.Buffer
}

// serve starts a server. It asks for a password where it turns to TLS: it offers that
// nowhere else.
func serve(t *testing.T, how TLS) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), tls: how}
	if how == StartTLS {
		s.password = password
	}
	for _, sub := range []string{"new", "refuse"} {
		if err := os.Mkdir(filepath.Join(s.dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.certify()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.start()
	t.Cleanup(s.stop)
	return s
}

// certify makes a certificate for loopback, which only this test trusts.
func (s *server) certify() {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "loopback"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		s.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	s.roots = x509.NewCertPool()
	s.roots.AppendCertsFromPEM(certificate)
	s.write("cert.pem", string(certificate))
	s.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

func (s *server) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) start() {
	s.t.Helper()
	program, err := exec.LookPath("aiosmtpd")
	if err != nil {
		s.t.Fatalf("%v; run deploy/dev/tools.sh, and put .cache/bin into PATH", err)
	}
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		s.t.Fatal(err)
	}
	args := []string{"-n", "-l", fmt.Sprintf("127.0.0.1:%d", s.port), "-c", "postbox.Postbox"}
	cert, key := filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "key.pem")
	switch s.tls {
	case StartTLS:
		args = append(args, "--tlscert", cert, "--tlskey", key)
	case Implicit:
		args = append(args, "--smtpscert", cert, "--smtpskey", key)
	}
	s.cmd = exec.Command(program, append(args, s.dir, s.password)...)
	s.cmd.Env = append(os.Environ(), "PYTHONPATH="+testdata, "PYTHONDONTWRITEBYTECODE=1")
	s.cmd.Stdout, s.cmd.Stderr = &s.said, &s.said
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err == nil {
			if err := conn.Close(); err != nil {
				s.t.Fatal(err)
			}
			return
		}
		if time.Now().After(deadline) {
			s.stop()
			s.t.Fatalf("the mail server does not answer: %v; it said:\n%s", err, s.said.String())
		}
	}
}

func (s *server) stop() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended by itself
	_ = s.cmd.Wait()         // it was killed
	s.cmd = nil
}

func (s *server) post(edit ...func(*Options)) *Post {
	s.t.Helper()
	o := Options{Host: "127.0.0.1", Port: s.port, TLS: s.tls, From: "Shop status <status@shop.example>", Roots: s.roots}
	if s.password != "" {
		o.Username, o.Password = "backout", s.password
	}
	for _, e := range edit {
		e(&o)
	}
	p, err := New(o)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// kept is a mail as the server took it.
type kept struct {
	to  string
	raw string
	*netmail.Message
}

func (s *server) kept() (all []kept) {
	s.t.Helper()
	files, err := filepath.Glob(filepath.Join(s.dir, "new", "????"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			s.t.Fatal(err)
		}
		to, raw, _ := strings.Cut(string(b), "\n")
		m, err := netmail.ReadMessage(strings.NewReader(raw))
		if err != nil {
			s.t.Fatalf("%v in\n%s", err, raw)
		}
		all = append(all, kept{to, raw, m})
	}
	return all
}

var opened = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// message is update n of an incident whose first mail was update 2.
func message(t *testing.T, to string, n int, edit ...func(*remediation.PublicMessage)) remediation.Message {
	t.Helper()
	b := remediation.PublicMessage{
		Key: "shop/inc-1@1795316400", Name: "Problems with Analytics", Impact: remediation.ImpactMajor,
		Components: []remediation.PublicComponent{{Name: "Analytics", Status: remediation.PartialOutage}},
		Update:     remediation.PublicUpdate{Number: n, Time: opened.Add(time.Hour), Status: remediation.PublicIdentified, Words: "Wir arbeiten daran. 我们正在处理。"},
		Mail:       &remediation.PublicMail{To: to, First: 2, Since: opened, Page: "https://status.shop.example"},
	}
	for _, e := range edit {
		e(&b)
	}
	raw, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return remediation.Message{Channel: Name, Key: "inc-1/" + to, Incident: "inc-1", Body: raw, Created: opened.Add(time.Hour)}
}

func deliver(t *testing.T, p *Post, m remediation.Message) error {
	t.Helper()
	_, err := p.Deliver(context.Background(), m)
	return err
}

func forGood(err error) bool {
	var never interface{ Undeliverable() }
	return errors.As(err, &never)
}
