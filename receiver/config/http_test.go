package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// carried is what a server sees of a request that goes by a configuration.
func carried(t *testing.T, files map[string]string, srv *httptest.Server) (http.Header, error) {
	t.Helper()
	cfg, _, err := load(t, files)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := cfg.PrometheusHTTP.Transport("prometheus", http.DefaultTransport)
	if err != nil {
		t.Fatal(err)
	}
	var seen http.Header
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header
		if r.URL.Path == "/token" {
			w.Header().Set("Content-Type", "application/json")
			if err := r.ParseForm(); err != nil || r.Form.Get("grant_type") != "client_credentials" {
				t.Errorf("token request %v, %v", r.Form, err)
			}
			_, secret, _ := r.BasicAuth()
			if _, err := w.Write([]byte(`{"access_token":"for-` + secret + `","token_type":"bearer"}`)); err != nil {
				t.Logf("client went away: %v", err)
			}
		}
	})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/api", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return seen, resp.Body.Close()
}

func TestNeighboursAreAskedWithTheCredentialsOfTheConfiguration(t *testing.T) {
	srv := httptest.NewServer(nil)
	t.Cleanup(srv.Close)
	for name, tc := range map[string]struct{ yaml, header, want string }{
		"nothing":           {"{}", "Authorization", ""},
		"a bearer token":    {"{http_config: {authorization: {credentials_file: s}}}", "Authorization", "Bearer abc"},
		"another scheme":    {"{http_config: {authorization: {type: Token, credentials_file: s}}}", "Authorization", "Token abc"},
		"the older key":     {"{http_config: {bearer_token_file: s}}", "Authorization", "Bearer abc"},
		"basic":             {"{http_config: {basic_auth: {username: u, password_file: s}}}", "Authorization", "Basic dTphYmM="},
		"oauth2":            {"{http_config: {oauth2: {client_id: c, client_secret_file: s, token_url: '" + srv.URL + "/token'}}}", "Authorization", "Bearer for-abc"},
		"a tenant":          {"{headers: {X-Scope-OrgID: shop}}", "X-Scope-OrgID", "shop"},
		"a list":            {"{headers: {X-Scope-OrgID: [shop, bar]}}", "X-Scope-OrgID", "shop bar"},
		"a secret header":   {"{headers: {X-Api-Key: {file: s}}}", "X-Api-Key", "abc"},
		"http_headers":      {"{http_config: {http_headers: {X-Scope-OrgID: {values: [shop]}, X-Api-Key: {files: [s]}}}}", "X-Api-Key", "abc"},
		"both":              {"{http_config: {authorization: {credentials_file: s}}, headers: {X-Scope-OrgID: shop}}", "X-Scope-OrgID", "shop"},
		"beside each other": {"{headers: {X-Scope-OrgID: shop}, http_config: {authorization: {credentials_file: s}}}", "Authorization", "Bearer abc"},
	} {
		t.Run(name, func(t *testing.T) {
			seen, err := carried(t, map[string]string{"backout.yml": "prometheus: " + tc.yaml, "s": "abc\n"}, srv)
			if err != nil || strings.Join(seen.Values(tc.header), " ") != tc.want {
				t.Errorf("%s is %q, %v; want %q", tc.header, seen.Values(tc.header), err, tc.want)
			}
		})
	}
}

func TestANeighboursCertificateAndOursAreOfFiles(t *testing.T) {
	srv := httptest.NewUnstartedServer(nil)
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	leaf := srv.TLS.Certificates[0]
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0]}))
	key := testKey(t, leaf)
	files := map[string]string{
		"backout.yml": "prometheus: {http_config: {tls_config: {ca_file: ca.pem, cert_file: ca.pem, key_file: key.pem}}}", "ca.pem": cert, "key.pem": key,
	}
	if _, err := carried(t, files, srv); err != nil {
		t.Error(err)
	}
	files["backout.yml"] = "prometheus: {http_config: {tls_config: {ca_file: ca.pem}}}"
	if _, err := carried(t, files, srv); err == nil {
		t.Error("without our certificate the server answers")
	}
	files["backout.yml"] = "prometheus: {http_config: {tls_config: {cert_file: ca.pem, key_file: key.pem}}}"
	if _, err := carried(t, files, srv); err == nil {
		t.Error("an unknown authority is believed")
	}
}

func TestASecretIsReadAgainForEachRequestAndStillLookedAt(t *testing.T) {
	dir := folder(t, map[string]string{"backout.yml": "prometheus: {http_config: {authorization: {credentials_file: s}}, headers: {X-Api-Key: {file: s}}}", "s": "old"})
	cfg, err := Load(filepath.Join(dir, "backout.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var seen string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		seen = r.Header.Get("Authorization") + " " + r.Header.Get("X-Api-Key")
	}))
	t.Cleanup(srv.Close)
	transport, err := cfg.PrometheusHTTP.Transport("prometheus", nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL, nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	if err := os.WriteFile(filepath.Join(dir, "s"), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil || seen != "Bearer new new" {
		t.Errorf("sent %q, %v", seen, err)
	}
	if err := os.Chmod(filepath.Join(dir, "s"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err == nil {
		t.Error("a secret that others can write is sent")
	}
}

func TestAMistakeInHTTPConfigSaysWhatToWrite(t *testing.T) {
	for name, tc := range map[string]struct{ yaml, line, words, try string }{
		"a password":             {"http_config:\n    basic_auth: {username: u, password: hunter2}", "3", "password would put a secret", "password_file: FILE"},
		"credentials":            {"http_config: {authorization: {credentials: hunter2}}", "2", "credentials would put a secret", "credentials_file: FILE"},
		"a bearer token":         {"http_config: {bearer_token: hunter2}", "2", "bearer_token would put a secret", "credentials_file: FILE"},
		"a client secret":        {"http_config: {oauth2: {client_id: c, client_secret: hunter2, token_url: 'http://x'}}", "2", "client_secret would put a secret", "client_secret_file: FILE"},
		"a key":                  {"http_config: {tls_config: {cert_file: s, key: hunter2}}", "2", "key would put a secret", "key_file: FILE"},
		"a proxy's password":     {"http_config: {proxy_url: 'http://u:hunter2@x'}", "2", "proxy_url must not contain a secret", "without USER:PASSWORD@"},
		"a secret header below":  {"http_config: {http_headers: {X-A: {secrets: [hunter2]}}}", "2", "secrets would put a secret", "files: [FILE]"},
		"a secret header":        {"headers: {X-Api-Key: hunter2}", "2", "X-Api-Key would put a secret", "X-Api-Key: {file: FILE}"},
		"a header of HTTP's":     {"headers: {Host: x}", "2", "Host is set by the connection", "leave it out"},
		"authorization again":    {"headers: {authorization: {file: s}}", "2", "Authorization is not set here", "http_config: {authorization:"},
		"a manager":              {"http_config: {authorization: {credentials_ref: x}}", "2", "credentials_ref names a secret manager", "credentials_file: FILE"},
		"an unknown key":         {"http_config:\n    tls_config: {}\n    tls_confg: {}", "4", `unknown key "tls_confg" in prometheus.http_config`, "a key of http_config"},
		"an unknown inner key":   {"http_config: {tls_config: {cafile: s}}", "2", `unknown key "cafile"`, "a key of http_config"},
		"two ways":               {"http_config: {bearer_token_file: s, basic_auth: {username: u}}", "2", "at most one of", ""},
		"a list":                 {"http_config: [a]", "2", "cannot unmarshal", ""},
		"redirects":              {"http_config: {follow_redirects: true}", "2", "does not follow redirects", "the address that answers itself"},
		"no such file":           {"http_config: {authorization: {credentials_file: none}}", "2", "no such file", "write the secret into it"},
		"an empty file":          {"http_config: {authorization: {credentials_file: empty}}", "2", "is empty", "write the secret into it"},
		"a file open to others":  {"http_config: {authorization: {credentials_file: open}}", "2", "have access to it", "chmod 600"},
		"an open header's file":  {"headers: {X-Api-Key: {file: open}}", "2", "have access to it", "chmod 600"},
		"a header without file":  {"headers: {X-Api-Key: {}}", "2", "has no file", "{file: FILE}"},
		"no certificate":         {"http_config: {tls_config: {ca_file: s}}", "2", "unable to use specified CA cert", ""},
		"basic_auth too high":    {"basic_auth: {username: u, password_file: s}", "2", "basic_auth belongs under http_config", "prometheus: {http_config: {basic_auth: ...}}"},
		"bearer token too high":  {"bearer_token_file: s", "2", "belongs under http_config", "prometheus: {http_config: {bearer_token_file: ...}}"},
		"authorization too high": {"authorization: {credentials_file: s}", "2", "belongs under http_config", "prometheus: {http_config: {authorization: ...}}"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t, map[string]string{"backout.yml": "prometheus:\n  " + tc.yaml, "s": "abc", "empty": "\n", "open": "abc"})
			if err := os.Chmod(filepath.Join(dir, "open"), 0o644); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "backout.yml")
			_, err := Load(path)
			if err == nil {
				t.Fatal("no mistake was found")
			}
			text := err.Error()
			if !strings.HasPrefix(text, path+":"+tc.line+": ") || !strings.Contains(text, tc.words) || !strings.Contains(text, tc.try) {
				t.Errorf("said %q", text)
			}
			if strings.Contains(text, "hunter2") || strings.Contains(text, "\n") {
				t.Errorf("a secret, or more than one line: %q", text)
			}
		})
	}
}

func TestPrometheussAddressMayHaveAQuery(t *testing.T) {
	cfg, _, err := load(t, map[string]string{"backout.yml": "prometheus: {url: 'http://thanos:10902/?partial_response=false'}"})
	if err != nil || cfg.PrometheusURL != "http://thanos:10902?partial_response=false" {
		t.Errorf("%+v, %v", cfg, err)
	}
}

// testKey is the private key of a test server's certificate.
func testKey(t *testing.T, of tls.Certificate) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(of.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
