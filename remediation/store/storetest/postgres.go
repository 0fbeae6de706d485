package storetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/locotoki/backout/hint"
)

// Postgres makes a role without any right but to connect, and a schema that is its own,
// as docs/postgresql.md says, and returns the dsn of both. They are dropped with the test.
func Postgres(t testing.TB) (dsn string) {
	t.Helper()
	name := "backout_test_" + strings.ToLower(rand.Text()[:12])
	once := func(statements string) { // a test may have hundreds of these, and a server has few connections
		admin := Superuser(t)
		Exec(t, admin, statements)
		_ = admin.Close(context.Background())
	}
	t.Cleanup(func() { once("DROP OWNED BY " + name + " CASCADE; DROP ROLE " + name) })
	once("CREATE ROLE " + name + " LOGIN PASSWORD 'pass:word'; CREATE SCHEMA " + name + " AUTHORIZATION " + name)
	u, err := url.Parse(os.Getenv("BACKOUT_POSTGRES_DSN"))
	if err != nil {
		t.Fatal("BACKOUT_POSTGRES_DSN is not an address of PostgreSQL")
	}
	u.User = url.UserPassword(name, "pass:word")
	u.RawQuery = "search_path=" + name
	return u.String()
}

// Superuser connects to the tests' server as a superuser.
func Superuser(t testing.TB) *pgx.Conn {
	t.Helper()
	dsn := os.Getenv("BACKOUT_POSTGRES_DSN")
	if dsn == "" {
		t.Fatal(hint.Text("BACKOUT_POSTGRES_DSN names no PostgreSQL", "make test, or deploy/dev/postgres.sh with go test ./remediation/store"))
	}
	c, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Fatal("the PostgreSQL that BACKOUT_POSTGRES_DSN names cannot be reached")
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// Exec runs statements; the test fails where one does.
func Exec(t testing.TB, c *pgx.Conn, statements string) {
	t.Helper()
	if _, err := c.PgConn().Exec(context.Background(), statements).ReadAll(); err != nil {
		t.Fatalf("%s: %v", statements, err)
	}
}

// Server is a PostgreSQL server of a test's own, which it may stop and start.
type Server struct {
	t    testing.TB
	data string
	port string
	cmd  *exec.Cmd
}

// password is the superuser's; no other process listens on loopback for long.
const password = "superuser"

// NewServer makes a cluster and starts it; it ends with the test. settings are lines of
// postgresql.conf, such as "fsync = off".
func NewServer(t testing.TB, settings ...string) *Server {
	t.Helper()
	s := &Server{t: t, data: filepath.Join(t.TempDir(), "data")}
	if err := os.Mkdir(s.data, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		if err := os.Chown(s.data, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	initdb := s.command("initdb", "--pgdata="+s.data, "--username=postgres", "--auth=scram-sha-256", "--pwfile=/dev/stdin", "--no-locale", "--encoding=UTF8", "--no-sync")
	initdb.Stdin = strings.NewReader(password + "\n")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	settings = append([]string{"listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "shared_buffers = 32MB", "jit = off"}, settings...)
	f, err := os.OpenFile(filepath.Join(s.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(strings.Join(settings, "\n") + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		t.Fatal(err)
	}
	_, s.port, _ = net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		if s.cmd != nil {
			s.Stop()
		}
	})
	return s
}

// nobody is the user that the server runs as where the test is root's.
const nobody = 65534

// command is a program of PostgreSQL as the user it may run as, who may read wherever
// the test is.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	if os.Getuid() == 0 {
		args = append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--pdeathsig=QUIT",
			"--bounding-set=-all,+dac_read_search", "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", name}, args...)
		name = "setpriv"
	}
	cmd := exec.Command(name, args...) //nolint:noctx // it ends with the test's cleanup
	cmd.Dir = s.data
	return cmd
}

// DSN is an address of the server, of its superuser.
func (s *Server) DSN() string {
	return "postgres://postgres:" + password + "@127.0.0.1:" + s.port + "/postgres"
}

// Start starts the server and waits until it answers.
func (s *Server) Start() {
	s.t.Helper()
	log, err := os.OpenFile(s.data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the server has its own
	s.cmd = s.command("postgres", "-D", s.data, "-p", s.port)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGQUIT}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := pgx.Connect(context.Background(), s.DSN())
		if err == nil {
			_ = c.Close(context.Background())
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(s.data + ".log")
			s.t.Fatalf("PostgreSQL does not start: %v\n%.4000s", err, text)
		}
	}
}

// CPU is the time that the server's processes have used so far, but for sessions that ended.
func (s *Server) CPU() (total time.Duration) {
	pid := s.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, child := range strings.Fields(string(children)) {
		n, err := strconv.Atoi(child)
		if err != nil {
			s.t.Fatal(err)
		}
		total += CPU(s.t, n)
	}
	return total
}

// CPU is the time that a process has used so far.
func CPU(t testing.TB, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	total := 0
	for _, v := range strings.Fields(rest)[11:13] { // utime and stime, in ticks of 10 ms
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	return time.Duration(total) * 10 * time.Millisecond
}

// Stop ends the server as pg_ctl stop -m immediate does: no session is finished and
// nothing is written out.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		s.t.Fatal(err)
	}
	_ = s.cmd.Wait() // it says that it did not end by itself
	s.cmd = nil
}
