package demo

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"text/template"
	"time"

	"github.com/locotoki/backout/deploy/demo/breakage"
	"github.com/locotoki/backout/deploy/kube"
	"github.com/locotoki/backout/hint"
)

//go:embed files
var files embed.FS

// flagName is the flag that the demo's playbook switches off.
const flagName = "FEATURE_ANALYTICS_ENABLED"

// settings are what a stack is started with.
type settings struct {
	dir     string // everything that the stack writes is below it
	backout string // the binary under demonstration
	source  string // a checkout, to build social-intel from
	engine  *engine
	cluster cluster
	tools   tools
	project string // compose's project name
	image   string // the images' repository, this stack's own
	mode    string // observe or act
	book    string // which of the files is the playbook
	share   string // the flag's value at the start
	stages  stages
	limits  limits
	plan    plan
	maxAge  string // the watchdog's, after which backout is blind; "": 5m
	// kubernetes has the service, in place of the engine; nil for a compose project.
	kubernetes *kube.Client
}

// plan is the rollback plan of the demo's playbook.
type plan struct {
	Actions  []string
	Approval string // how long a lossy step waits for its approval
}

// wholePlan is the plan of the real playbook, step by step.
func wholePlan() plan {
	return plan{Actions: []string{"status_page", "flag_off", "status_page", "image_retag", "schema_rollback"}, Approval: "5m"}
}

// stages say how long each of the canary's stages lasts at least, by its name.
type stages map[string]string

// limits are those of the demo's playbook that one breach never meets, and
// many breaches in a row do.
type limits struct {
	PerHour      int    // how many steps may run in an hour
	ReopenWithin string // how long a closed incident takes a new alert
}

// oneBreach are the limits for a single breach.
var oneBreach = limits{PerHour: 6, ReopenWithin: "1h"}

// stack is a whole installation on this machine: a compose project with
// social-intel, Prometheus, Alertmanager and backout, all on loopback.
type stack struct {
	settings
	client *http.Client
	lock   *os.File

	address map[string]string // host:port by name
	token   map[string]string // by name, as in backout.yml

	// members are stacks that share this one's programs and database: a service and a
	// playbook each. Without any, those of the stack itself are meant.
	members []*stack
	service string // by which the playbook and Prometheus know it
	first   *stack // whose member it is

	prometheus, alertmanager, serve *process
	pods                            *pods // nil for a compose project
}

// errBusy: the folder is another stack's.
var errBusy = errors.New("another demo runs")

// newStack takes the folder into possession and cleans up what an earlier
// stack of this folder has left.
func newStack(ctx context.Context, set settings) (*stack, error) {
	s := &stack{
		settings: set, address: map[string]string{}, token: map[string]string{},
		client: &http.Client{Timeout: 10 * time.Second}, service: "social-intel",
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := filepath.EvalSymlinks(s.dir)
	if err != nil {
		return nil, err
	}
	if s.dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	if s.lock, err = os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(hint.Add(fmt.Errorf("%w in %s", errBusy, s.dir), "end that one first"), s.lock.Close())
	}
	if err := s.clear(ctx); err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	return s, nil
}

// clear ends and removes whatever a stack in this folder has made, but for
// the folder itself and its lock.
func (s *stack) clear(ctx context.Context) error {
	if err := endLeftovers(s.dir); err != nil {
		return err
	}
	if err := s.engine.purge(ctx, s.project); err != nil {
		return fmt.Errorf("remove the containers of compose project %s: %w", s.project, err)
	}
	if err := s.engine.removeImages(ctx, s.image); err != nil {
		return fmt.Errorf("remove the images %s: %w", s.image, err)
	}
	if err := s.dropDatabase(ctx); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.Name() != "lock" {
			errs = append(errs, os.RemoveAll(filepath.Join(s.dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// close ends everything and removes the folder.
func (s *stack) close(ctx context.Context) error {
	var errs []error
	for _, p := range []*process{s.serve, s.alertmanager, s.prometheus} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	if s.pods != nil {
		errs = append(errs, s.pods.stop(ctx))
	}
	errs = append(errs, s.clear(ctx), os.RemoveAll(s.dir), s.lock.Close())
	return errors.Join(errs...)
}

// path is a path below the stack's folder.
func (s *stack) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *stack) url(name string) string { return "http://" + s.address[name] }

// prepare picks addresses and tokens and writes every file.
func (s *stack) prepare(ctx context.Context) error {
	if err := s.pickAddresses("service", "prometheus", "alertmanager", "backout"); err != nil {
		return err
	}
	for _, d := range []string{"project/breakage", "project/secrets", "migrations"} {
		if err := os.MkdirAll(s.path(d), 0o755); err != nil {
			return err
		}
	}
	for _, name := range []string{"am", "looker", "demo", "database"} {
		var b [16]byte
		if _, err := rand.Read(b[:]); err != nil {
			return err
		}
		s.token[name] = hex.EncodeToString(b[:])
		file := s.path(name + ".token")
		if name == "database" {
			file = s.path("project", "secrets", "database.password")
		}
		if err := os.WriteFile(file, []byte(s.token[name]+"\n"), 0o600); err != nil {
			return err
		}
	}
	dsn, err := s.adminDSN()
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("database.dsn"), []byte(dsn+"\n"), 0o600); err != nil {
		return err
	}
	if err := s.writeMigrations(); err != nil {
		return err
	}
	if err := s.createDatabase(ctx); err != nil {
		return err
	}
	project := s.writeProject
	if s.kubernetes != nil {
		project = func() error { return s.startPods(ctx) }
	}
	if err := project(); err != nil {
		return err
	}
	return s.configure(ctx)
}

// writeProject writes what belongs to the service: its compose project and its playbook.
func (s *stack) writeProject() error {
	for from, to := range map[string]string{
		"docker-compose.yml": "project/docker-compose.yml", "env": "project/.env", s.book: "playbook.yaml",
	} {
		if err := s.write(from, to); err != nil {
			return err
		}
	}
	return nil
}

// configure writes what the programs read, for every member.
func (s *stack) configure(ctx context.Context) error {
	if err := errors.Join(s.write("prometheus.yml", "prometheus.yml"), s.write("backout.yml", "backout.yml")); err != nil {
		return err
	}
	if err := os.RemoveAll(s.path("generated")); err != nil {
		return err
	}
	return s.generate(ctx)
}

// all are the stacks whose services are looked after.
func (s *stack) all() []*stack {
	if len(s.members) == 0 {
		return []*stack{s}
	}
	return s.members
}

// base is the stack whose programs and database are used.
func (s *stack) base() *stack {
	if s.first != nil {
		return s.first
	}
	return s
}

// playbooks are the flags that name every member's playbook.
func (s *stack) playbooks() []string {
	var out []string
	for _, m := range s.all() {
		out = append(out, "--playbook.file="+m.path("playbook.yaml"))
	}
	return out
}

// values are what the files are filled in with.
func (s *stack) values() map[string]any {
	_, port, _ := strings.Cut(s.address["service"], ":")
	var members []map[string]string
	for _, m := range s.all() {
		members = append(members, map[string]string{"Service": m.service, "Address": m.address["service"], "ProjectDir": m.path("project")})
	}
	namespace, sockets := "", "/run/postgresql" // where the compose project mounts them
	if s.pods != nil {
		namespace, sockets = s.pods.namespace, s.cluster.socket
	}
	rate := 20 // requests a second
	if s.book == "canary.yaml" {
		rate = 60 // its triggers want more
	}
	return map[string]any{
		"Rate": rate, "Project": s.project, "Image": s.image, "Flag": s.share, "Limits": s.limits, "Plan": s.plan, "MaxAge": cmp.Or(s.maxAge, "5m"),
		"Service": s.service, "Members": members, "Stages": s.stages,
		"ProjectDir": s.path("project"), "RulesDir": s.path("generated", "rules"), "DockerHost": s.engine.host,
		"ServicePort": port, "ServiceAddress": s.address["service"], "ServiceURL": s.url("service"),
		"PrometheusURL":       s.url("prometheus"),
		"AlertmanagerAddress": s.address["alertmanager"], "AlertmanagerURL": s.url("alertmanager"),
		"BackoutAddress": s.address["backout"], "BackoutURL": s.url("backout"),
		"Sockets": s.cluster.socket, "Database": s.databaseURL(s.role(), sockets), "Role": s.role(),
		"Namespace": namespace, "Kubeconfig": s.path("kubeconfig"), "Pods": s.path("pods.json"),
		"DSNFile": s.path("database.dsn"), "Migrations": s.path("migrations"), "Snapshots": s.path("snapshots"),
	}
}

// write fills in one of the files. Compose's own is taken as it stands.
func (s *stack) write(from, to string) error {
	text, err := fs.ReadFile(files, "files/"+from)
	if err != nil {
		return err
	}
	if from != "docker-compose.yml" {
		t, err := template.New(from).Option("missingkey=error").Parse(string(text))
		if err != nil {
			return err
		}
		var out bytes.Buffer
		if err := t.Execute(&out, s.values()); err != nil {
			return err
		}
		text = out.Bytes()
	}
	return os.WriteFile(s.path(to), text, 0o600)
}

// The stacks' ports are below those that the kernel gives to connections: what is
// stopped, or not started yet, finds its port free.
const (
	firstPort = 12000
	ports     = 4000
)

// tried counts the ports that this process has tried: no two stacks get the same.
var tried atomic.Int64

// pickAddresses finds free ports on loopback.
func (s *stack) pickAddresses(names ...string) error {
	for _, name := range names {
		err := errors.New("no port")
		for n := 0; err != nil && n < ports; n++ {
			port := firstPort + (int64(os.Getpid())+tried.Add(1))%ports
			var l net.Listener
			if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
				s.address[name] = l.Addr().String()
				err = l.Close()
			}
		}
		if err != nil {
			return fmt.Errorf("find a free port from %d to %d: %w", firstPort, firstPort+ports-1, err)
		}
	}
	return nil
}

// compose runs docker-compose in the project's folder, as an operator would.
func (s *stack) compose(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, s.tools.compose, args...)
	cmd.Dir = s.path("project")
	cmd.Env = append(withoutFlags(os.Environ()), "DOCKER_HOST="+s.engine.host)
	cmd.SysProcAttr = kube.ChildAttributes()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("docker-compose %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// withoutFlags leaves out what would win over the project's .env.
func withoutFlags(environ []string) []string {
	var out []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "FEATURE_") && !strings.HasPrefix(name, "SOCIAL_INTEL_") && !strings.HasPrefix(name, "COMPOSE_") {
			out = append(out, kv)
		}
	}
	return out
}

// up starts or renews the compose project, or restarts the pods, and waits until the service answers.
func (s *stack) up(ctx context.Context) error {
	if s.pods != nil {
		return s.restartPods(ctx)
	}
	if err := s.compose(ctx, "up", "-d"); err != nil {
		return err
	}
	return s.untilHealthy(ctx)
}

// untilHealthy waits until the service answers.
func (s *stack) untilHealthy(ctx context.Context) error {
	return await(ctx, readyWithin, 50*time.Millisecond, func(ctx context.Context) error {
		_, err := fetch(ctx, s.client, s.url("service")+"/health/", "")
		return err
	})
}

// startPrometheus starts Prometheus with the generated rules.
func (s *stack) startPrometheus(ctx context.Context) (err error) {
	s.prometheus, err = start(s.dir, "prometheus", s.tools.prometheus,
		"--config.file="+s.path("prometheus.yml"), "--storage.tsdb.path="+s.path("prometheus"),
		"--web.listen-address="+s.address["prometheus"], "--log.level=warn")
	if err != nil {
		return err
	}
	return s.prometheus.ready(ctx, s.client, s.url("prometheus")+"/-/ready")
}

// startAlertmanager starts Alertmanager with the generated routes.
func (s *stack) startAlertmanager(ctx context.Context) (err error) {
	s.alertmanager, err = start(s.dir, "alertmanager", s.tools.alertmanager,
		"--config.file="+s.path("alertmanager.yml"), "--storage.path="+s.path("alertmanager"),
		"--web.listen-address="+s.address["alertmanager"], "--cluster.listen-address=", "--log.level=warn")
	if err != nil {
		return err
	}
	return s.alertmanager.ready(ctx, s.client, s.url("alertmanager")+"/-/ready")
}

// startBackout starts `backout serve`, the first time or again.
func (s *stack) startBackout(ctx context.Context) (err error) {
	s.serve, err = start(s.dir, "backout", s.backout, append([]string{
		"serve",
		"--config.file=" + s.path("backout.yml"), "--storage.dsn=sqlite:" + s.path("backout.db"), "--mode=" + s.mode,
		"--web.listen-address=" + s.address["backout"], "--web.status-listen-address=",
	}, s.playbooks()...)...)
	if err != nil {
		return err
	}
	return s.serve.ready(ctx, s.client, s.url("backout")+"/-/ready")
}

// breakWith makes the service fail from now on; the zero value repairs it.
func (s *stack) breakWith(b breakage.Breakage) error {
	return breakage.Write(s.path("project", "breakage", "now.json"), b)
}
