package receiver

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/locotoki/backout/receiver/config"
)

// serve runs b on a loopback port until the test, or the returned stop, ends
// it; stop returns what Serve returned.
func (b *bench) serve(t *testing.T, webConfig string) (address string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Serve(ctx, []net.Listener{l}, webConfig) }()
	stopped := false
	stop = func() error { stopped = true; cancel(); return <-ended }
	t.Cleanup(func() {
		if stopped {
			return
		}
		if err := stop(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String(), stop
}

// ended is a context that has ended: Serve returns immediately, whether it refuses
// or not.
func ended(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestItServesUntilTold(t *testing.T) {
	b := newBench(t)
	address, stop := b.serve(t, "")
	resp, err := http.Post("http://"+address+"/api/v1/webhook/alertmanager", "application/json", strings.NewReader(oneAlert))
	if err != nil {
		t.Fatal(err)
	}
	if text := drain(t, resp); resp.StatusCode != http.StatusOK || !strings.Contains(text, `"accepted":1`) {
		t.Errorf("answered %d %s", resp.StatusCode, text)
	}
	if err := stop(); err != nil {
		t.Errorf("serve: %v", err)
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		t.Errorf("the port is still open: %v", conn.Close())
	}
}

func TestWhatIsInFlightWhenToldToStopIsCommittedAndAnswered(t *testing.T) {
	b := newBench(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	b.service.accept = func(ctx context.Context) error { close(entered); <-leave; return ctx.Err() }
	address, stop := b.serve(t, "")
	answers := make(chan string, 1)
	go func() {
		resp, err := http.Post("http://"+address+"/api/v1/webhook/alertmanager", "application/json", strings.NewReader(oneAlert))
		if err != nil {
			answers <- err.Error()
			return
		}
		answers <- resp.Status + " " + drain(t, resp)
	}()
	<-entered
	ended := make(chan error)
	go func() { ended <- stop() }()
	eventually(t, "no new connection is taken", func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return true
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		return false
	})
	select {
	case err := <-ended:
		t.Fatalf("serve ended before the answer: %v", err)
	default:
	}
	close(leave)
	if got := <-answers; !strings.HasPrefix(got, `200 OK {"accepted":1`) {
		t.Errorf("the client got %s", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
	if len(b.service.took()) != 1 {
		t.Error("it was not committed")
	}
}

func TestARequestThatDoesNotEndIsCutOffAfterTheGrace(t *testing.T) {
	b := newBench(t)
	b.grace = time.Millisecond
	entered, leave := make(chan struct{}), make(chan struct{})
	b.service.accept = func(context.Context) error { close(entered); <-leave; return errors.New("too late") }
	address, stop := b.serve(t, "")
	answered := make(chan error, 1)
	go func() {
		resp, err := http.Post("http://"+address+"/api/v1/webhook/alertmanager", "application/json", strings.NewReader(oneAlert))
		if err == nil {
			err = resp.Body.Close()
			answered <- errors.Join(err, errors.New("answered "+resp.Status))
			return
		}
		answered <- nil
	}()
	<-entered
	if err := stop(); err == nil || !strings.Contains(err.Error(), "still in flight") {
		t.Errorf("serve: %v", err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the client got an answer of what was not committed: %v", err)
	}
	close(leave)
}

func TestOneListenerThatFailsEndsTheOthers(t *testing.T) {
	b := newBench(t)
	good, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bad, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Serve(t.Context(), []net.Listener{good, bad}, ""); !errors.Is(err, net.ErrClosed) {
		t.Errorf("serve: %v", err)
	}
	if conn, err := net.Dial("tcp", good.Addr().String()); err == nil {
		t.Errorf("the other is still open: %v", conn.Close())
	}
}

func TestBeyondLoopbackNeedsTokens(t *testing.T) {
	oncall := []config.Token{token(t, "oncall", config.Commander)}
	for _, tc := range []struct {
		address string
		tokens  []config.Token
		words   string
	}{
		{"127.0.0.1:9099", nil, ""},
		{"127.3.2.1:0", nil, ""},
		{"localhost:9099", nil, ""},
		{"[::1]:9099", nil, ""},
		{":9099", nil, "is not loopback, and no tokens are configured; try: "},
		{"0.0.0.0:9099", nil, "is not loopback"},
		{"[::]:9099", nil, "is not loopback"},
		{"10.0.0.5:9099", nil, "is not loopback"},
		{"backout.example.com:9099", nil, "is not loopback"},
		{"9099", nil, "missing port"},
		{":9099", oncall, ""},
		{"10.0.0.5:9099", oncall, ""},
	} {
		err := CheckListen([]string{tc.address}, &config.Config{Tokens: tc.tokens})
		if (err == nil) != (tc.words == "") || (err != nil && !strings.Contains(err.Error(), tc.words)) {
			t.Errorf("%s with %d tokens: %v", tc.address, len(tc.tokens), err)
		}
	}
	err := CheckListen([]string{":1", "127.0.0.1:2", "0.0.0.0:3"}, &config.Config{})
	if err == nil || !strings.Contains(err.Error(), `":1"`) || !strings.Contains(err.Error(), `"0.0.0.0:3"`) || strings.Contains(err.Error(), "127.0.0.1:2") {
		t.Errorf("of three: %v", err)
	}
}

func TestServeItselfRefusesToListenBeyondLoopbackWithoutTokens(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := newBench(t).Serve(ended(t), []net.Listener{l}, ""); err == nil || !strings.Contains(err.Error(), "is not loopback") {
		t.Errorf("serve: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is left open: %v", err)
	}
}

func TestAReloadCannotTakeTheLastTokenFromAServerBeyondLoopback(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, token(t, "eye", config.Viewer))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Serve(ctx, []net.Listener{l}, "") }()
	eventually(t, "it serves", func() bool { return b.listening.Load() != nil })
	if err := b.Reconfigure(config.Default()); err == nil || !strings.Contains(err.Error(), "is not loopback") {
		t.Errorf("reconfigure: %v", err)
	}
	wantError(t, b.do(request("GET", "/api/v1/incidents", "")), http.StatusUnauthorized, "token")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestASlowHeaderIsCutOff(t *testing.T) {
	b := newBench(t)
	b.headerTimeout = 50 * time.Millisecond
	address, _ := b.serve(t, "")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /api/v1/webhook/alertmanager HTTP/1.1\r\nHost: x\r\nX-Slow: "); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("it waits for ever: %v", err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestAHugeHeaderIsRefused(t *testing.T) {
	address, _ := newBench(t).serve(t, "")
	r, err := http.NewRequest(http.MethodGet, "http://"+address+"/-/healthy", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Large", strings.Repeat("x", 2*maxHeaderBytes))
	resp, err := new(http.Client).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if drain(t, resp); resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answered %s", resp.Status)
	}
}

// authority signs the certificates of a test.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{}
	a.key, a.cert, a.pem = certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	return a
}

// certify makes a key and a certificate of it, signed by a, or by itself.
func certify(t *testing.T, template *x509.Certificate, a *authority) (*ecdsa.PrivateKey, *x509.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// issue returns a certificate and its key as PEM.
func (a *authority) issue(t *testing.T, name string, usage x509.ExtKeyUsage) (cert, key []byte) {
	t.Helper()
	k, _, cert := certify(t, &x509.Certificate{Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}}, a)
	der, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// client trusts a, and shows a certificate of by, nil for none.
func (a *authority) client(t *testing.T, by *authority) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	tlsConfig := &tls.Config{RootCAs: roots}
	if by != nil {
		certPEM, keyPEM := by.issue(t, "alertmanager", x509.ExtKeyUsageClientAuth)
		cert, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			t.Fatal(err)
		}
		// Also where the server does not ask for this authority's.
		tlsConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func TestTLSAndClientCertificates(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	cert, key := ca.issue(t, "localhost", x509.ExtKeyUsageServerAuth)
	files := map[string]string{
		"server.crt": string(cert), "server.key": string(key), "ca.crt": string(ca.pem),
		"tls.yml":   "tls_server_config: {cert_file: server.crt, key_file: server.key}\n",
		"http1.yml": "tls_server_config: {cert_file: server.crt, key_file: server.key}\nhttp_server_config: {http2: false}\n",
		"mtls.yml":  "tls_server_config: {cert_file: server.crt, key_file: server.key, client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.crt}\n",
	}
	dir := folder(t, files)
	for _, tc := range []struct {
		config string
		client *http.Client
		proto  string // "": refused
	}{
		{"tls.yml", ca.client(t, nil), "HTTP/2.0"},
		{"tls.yml", stranger.client(t, nil), ""},
		{"http1.yml", ca.client(t, nil), "HTTP/1.1"},
		{"mtls.yml", ca.client(t, ca), "HTTP/2.0"},
		{"mtls.yml", ca.client(t, nil), ""},
		{"mtls.yml", ca.client(t, stranger), ""},
	} {
		t.Run(tc.config+" "+tc.proto, func(t *testing.T) {
			b := newBench(t, token(t, "am", config.Alertmanager))
			address, _ := b.serve(t, filepath.Join(dir, tc.config))
			post := func(secret string) (*http.Response, error) {
				r, err := http.NewRequest(http.MethodPost, "https://"+address+"/api/v1/webhook/alertmanager", strings.NewReader(oneAlert))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+secret)
				return tc.client.Do(r)
			}
			resp, err := post("am-secret")
			if tc.proto == "" {
				if err == nil {
					t.Errorf("answered %s", drain(t, resp))
				}
				if len(b.service.took()) != 0 {
					t.Error("it was committed")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if text := drain(t, resp); resp.StatusCode != http.StatusOK || resp.Proto != tc.proto {
				t.Errorf("answered %s %s %s", resp.Proto, resp.Status, text)
			}
			if resp, err = post("no-secret"); err != nil {
				t.Fatal(err)
			}
			if drain(t, resp); resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("a certificate took the place of a token: %s", resp.Status)
			}
		})
	}
}

func TestPlainHTTPOnATLSPortCommitsNothing(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, "localhost", x509.ExtKeyUsageServerAuth)
	dir := folder(t, map[string]string{"server.crt": string(cert), "server.key": string(key), "tls.yml": "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"})
	b := newBench(t)
	address, _ := b.serve(t, filepath.Join(dir, "tls.yml"))
	resp, err := http.Post("http://"+address+"/api/v1/webhook/alertmanager", "application/json", strings.NewReader(oneAlert))
	if err != nil {
		t.Fatal(err)
	}
	if drain(t, resp); resp.StatusCode != http.StatusBadRequest || len(b.service.took()) != 0 {
		t.Errorf("answered %s", resp.Status)
	}
}

func TestAWebConfigurationThatDoesNotFitIsRefused(t *testing.T) {
	for name, tc := range map[string]struct{ content, words string }{
		"users":        {"basic_auth_users:\n  a: $2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi\n", "web.yml:2: basic_auth_users would hide the tokens; try: tokens:"},
		"a rate limit": {"rate_limit: {interval: 1s, burst: 1}\n", "web.yml:1: rate_limit answers 429"},
		"unknown key":  {"tls: {}\n", "field tls not found"},
		"no such cert": {"tls_server_config: {cert_file: a, key_file: b}\n", "cert_file"},
		"not YAML":     {"a: [", "yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(folder(t, map[string]string{"web.yml": tc.content}), "web.yml")
			if err := CheckWebConfig(path); err == nil || !strings.Contains(err.Error(), tc.words) || !strings.Contains(err.Error(), path) {
				t.Errorf("said %v", err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			if err := newBench(t).Serve(ended(t), []net.Listener{l}, path); err == nil {
				t.Error("it was served")
			}
		})
	}
	empty := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", empty} {
		if err := CheckWebConfig(path); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	if err := CheckWebConfig(filepath.Join(t.TempDir(), "none.yml")); err == nil {
		t.Error("a file that is not there was taken")
	}
}

func TestAConnectionIsKeptForTheNextNotification(t *testing.T) {
	address, _ := newBench(t).serve(t, "")
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for _, tc := range []struct {
		body   string
		status int
	}{{oneAlert, 200}, {"nonsense", 400}, {oneAlert, 200}} {
		if _, err := fmt.Fprintf(conn, "POST /api/v1/webhook/alertmanager HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(tc.body), tc.body); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if drain(t, resp); resp.StatusCode != tc.status || resp.Close {
			t.Errorf("answered %s, closing: %v", resp.Status, resp.Close)
		}
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

// folder writes files into a new folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
