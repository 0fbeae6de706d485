package alerts

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/locotoki/backout/hint"
)

// validator judges a decoded playbook. It says nothing about a value that the
// decoder found bad.
type validator struct {
	*report
	pb    *Playbook
	kinds []ActionKind
}

func (v *validator) validate() {
	v.service()
	v.target()
	v.flags()
	v.selectors()
	v.indicators()
	v.triggers()
	v.stages()
	v.plans()
	v.limits()
	v.guide()
}

// The forms of names. What becomes a label, an alert's name or an environment
// variable follows Prometheus's legacy rules; what becomes a container's or an
// image's part follows Docker's.
var (
	contextName = form{regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$`), "the context as kubectl config get-contexts lists it"}
	objectName  = form{regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`), "lower-case letters, digits, - and ., beginning and ending with a letter or digit"}
	portName    = form{regexp.MustCompile(`^([1-9][0-9]{0,4}|[a-z0-9-]*[a-z][a-z0-9-]*)$`), "a port's number or its name in the pod, such as 9000 or http"}
	portNumber  = form{regexp.MustCompile(`^[1-9][0-9]{0,4}$`), "a port's number, such as 9000"}
	identifier  = form{regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`), "letters, digits and _, not beginning with a digit"}
	projectName = form{regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`), "lower-case letters, digits, _ and -, beginning with a letter or digit"}
	plainName   = form{regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`), "letters, digits, _ . and -, beginning with a letter or digit"}
	imageTag    = form{regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`), "an image tag such as v2.0.0"}
	environment = form{regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`), "an environment variable such as FEATURE_ANALYTICS_ENABLED"}
)

type form struct {
	re   *regexp.Regexp
	says string
}

// need reports a required value that is missing. One that is empty is reported already: its
// hint becomes that of a required value, which cannot be left out.
func (v *validator) need(path string, missing bool, try string) bool {
	if i := slices.IndexFunc(v.list, func(p Problem) bool { return p.Message == path+isEmpty }); i >= 0 {
		v.list[i].Try = try
		return false
	}
	if missing {
		v.at(path, path+" is missing", try)
	}
	return !missing
}

// name reports a name that is missing or of the wrong form.
func (v *validator) name(path, value string, f form, try string) bool {
	if !v.need(path, value == "", try) {
		return false
	}
	if len(value) > 128 || !f.re.MatchString(value) {
		v.at(path, fmt.Sprintf("%s: %q is not a valid name", path, value), "write "+f.says)
		return false
	}
	return true
}

// known reports a value that is not one of values.
func known[T ~string](v *validator, path string, value T, values ...T) {
	if slices.Contains(values, value) {
		return
	}
	words := make([]string, len(values))
	for i, w := range values {
		words[i] = string(w)
	}
	v.at(path, fmt.Sprintf("%s: unknown value %q", path, value), OneOf(string(value), words))
}

// positive reports a duration that is not above zero.
func (v *validator) positive(path string, d model.Duration) bool {
	if d <= 0 {
		v.at(path, path+" is not above 0", "write a duration such as 5m")
	}
	return d > 0
}

// unique reports a name that was given before. Names that differ only in how
// their words are joined would give one alert name.
func (v *validator) unique(list string, n int, name func(int) string) {
	first := map[string]int{}
	for i := range n {
		p := plain(name(i))
		if p == "" {
			continue
		}
		path := key(item(list, i), "name")
		if j, ok := first[p]; ok {
			v.at(path, fmt.Sprintf("%s: the name %q is taken by line %d (%s)", path, name(i), v.pos.line(key(item(list, j), "name")), name(j)), "give it another name")
			continue
		}
		first[p] = i
	}
}

func (v *validator) service() {
	p := v.pb
	v.name("service", p.Service, plainName, "write the service's name, such as social-intel")
	if v.need("release", !v.pos.has("release"), "release: {version: v2.0.0, previous: v1.0.0}") {
		ok := v.name("release.version", p.Release.Version, imageTag, "write the version being rolled out, such as v2.0.0")
		ok = v.name("release.previous", p.Release.Previous, imageTag, "write the version before it, such as v1.0.0") && ok
		if ok && p.Release.Version == p.Release.Previous {
			v.at("release.previous", "release.previous is the same as release.version: there is nothing to roll back to", "write the version before it", "release.version")
		}
	}
	if v.need("job", p.Job == "", "write the Prometheus job that scrapes the service") && strings.ContainsAny(p.Job, "\n\r\x00") {
		v.at("job", "job holds a line break", "write the job's name as Prometheus has it")
	}
	v.positive("scrape_interval", p.ScrapeInterval)
	if m := p.UpMatchers(); v.pos.has("up") {
		matchers, err := promql().ParseMetricSelector("up{" + m + "}")
		if err != nil || m == "" {
			v.at("up", "up is not a list of label matchers", `write those of the service's own targets, such as up: service="shop"`)
		}
		if p.Job != "" && slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return m.Name == "job" && !m.Matches(p.Job) }) {
			v.at("up", fmt.Sprintf("up selects no target of the job %s: the service would never count as alive", p.Job), "leave job out of up, and write the job that scrapes the service as job", "job")
		}
	}
	if v.need("alive", p.Alive == "", "write an expression that is 1 while the service has traffic") {
		v.expression("alive", "alive", p.Alive)
	}
	if p.RunbookURL != "" {
		v.web("runbook_url", p.RunbookURL)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Dashboards)) {
		v.web(key("dashboards", name), p.Dashboards[name])
	}
	v.dashboardAliases()
}

// dashboardAliases checks where the indicators' dashboards lead: a playbook that maps
// names means all of them.
func (v *validator) dashboardAliases() {
	p, names := v.pb, slices.Sorted(maps.Keys(v.pb.Dashboards))
	if v.isBad("dashboards") || v.isBad("dashboard_aliases") {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(p.DashboardAliases)) {
		path, to := key("dashboard_aliases", name), p.DashboardAliases[name]
		if _, ok := p.Dashboards[to]; !ok {
			v.at(path, fmt.Sprintf("%s: no dashboard %q is listed under dashboards", path, to), OneOf(to, names))
		}
		if _, ok := p.Dashboards[name]; ok {
			v.at(path, fmt.Sprintf("%s: the dashboard %q is already listed", path, name), "leave the alias out")
		}
	}
	if len(p.DashboardAliases) == 0 {
		return
	}
	for i := range p.Indicators {
		ind, path := &p.Indicators[i], key(item("indicators", i), "dashboard")
		_, aliased := p.DashboardAliases[ind.Dashboard]
		if ind.Dashboard != "" && p.Board(ind) == "" && !aliased {
			v.at(path, fmt.Sprintf("%s: %q is neither listed under dashboards nor mapped under dashboard_aliases", path, ind.Dashboard), "add it to dashboard_aliases, or "+OneOf(ind.Dashboard, names))
		}
	}
}

func (v *validator) target() {
	const compose, kubernetes, swarm, probe = "target.compose", "target.kubernetes", "target.swarm", "target.probe"
	t := v.pb.Target
	if !v.need("target", !v.pos.has("target"), "target: {compose: {project_dir: /srv/x, service: x}, probe: {health: http://127.0.0.1:9000/health/}}") {
		return
	}
	var places []string
	for _, place := range []string{compose, kubernetes, swarm} {
		if v.pos.has(place) {
			places = append(places, place)
		}
	}
	switch {
	case len(places) > 1:
		last := places[len(places)-1]
		names := strings.ReplaceAll(strings.Join(places, " and "), "target.", "")
		v.at(last, "target has "+names+": a service runs in one place", "keep one of them", places[0])
	case v.pos.has(swarm):
		if t.Swarm != nil {
			v.swarm(swarm, t.Swarm)
		}
	case v.pos.has(kubernetes):
		if t.Kubernetes != nil {
			v.kubernetes(kubernetes, t.Kubernetes)
		}
	case v.need(compose, !v.pos.has(compose), "compose: {project_dir: /srv/x, service: x}, or kubernetes: {namespace: x, deployment: x, container: x}, or swarm: {service: x}"):
		v.name(key(compose, "service"), t.Compose.Service, plainName, "write one compose service; without a name there is no target")
		if t.Compose.Project != "" {
			v.name(key(compose, "project"), t.Compose.Project, projectName, "leave it out if the folder has one project")
		}
		if t.Compose.Host != "" {
			v.name(key(compose, "host"), t.Compose.Host, plainName, "write the name that the replica there has in replica.hosts")
		}
		dir, path := t.Compose.ProjectDir, key(compose, "project_dir")
		if v.need(path, dir == "", "write the absolute path of the compose project's folder") {
			switch {
			case !filepath.IsAbs(dir):
				v.at(path, fmt.Sprintf("%s: %q is not an absolute path", path, dir), "write the full path, such as /srv/social-intel")
			case dir == "/" || filepath.Clean(dir) != dir || strings.ContainsAny(dir, "*?[\n\r\x00"):
				v.at(path, fmt.Sprintf("%s: %q is not a plain path of one folder", path, dir), "write it without wildcards, .. and double slashes, and not /")
			}
		}
	}
	if v.need(probe, !v.pos.has(probe), "probe: {health: http://127.0.0.1:9000/health/, timeout: 30s}") {
		address, port := v.web, key(probe, "port")
		switch {
		case v.pos.has(kubernetes):
			address = v.path
			v.name(port, t.Probe.Port, portName, "write the port that the pods listen on, such as port: http")
		case v.pos.has(swarm):
			address = v.path
			v.name(port, t.Probe.Port, portNumber, "write the port that the containers listen on, such as port: 9000")
		case t.Probe.Port != "":
			v.at(port, port+" is for kubernetes and swarm: a compose service is asked at full addresses", "remove it, and write the port into the addresses")
		}
		if v.need(key(probe, "health"), t.Probe.Health == "", "write the address that answers 200 while the service is well") {
			address(key(probe, "health"), t.Probe.Health)
		}
		for name, a := range map[string]string{"version": t.Probe.Version, "flags": t.Probe.Flags} {
			if a != "" {
				address(key(probe, name), a)
			}
		}
		v.positive(key(probe, "timeout"), t.Probe.Timeout)
		v.smoke(key(probe, "smoke"), t.Probe.Smoke)
	}
}

// kubernetes judges a target in a cluster.
func (v *validator) kubernetes(at string, t *KubernetesTarget) {
	if t.Context != "" {
		v.name(key(at, "context"), t.Context, contextName, "write "+contextName.says)
	}
	v.name(key(at, "namespace"), t.Namespace, objectName, "write one namespace, such as namespace: shop")
	deployment, statefulSet := key(at, "deployment"), key(at, "statefulset")
	switch {
	case t.Deployment != "" && t.StatefulSet != "":
		v.at(statefulSet, at+" has both deployment and statefulset", "remove one of them", deployment)
	case t.StatefulSet != "":
		v.name(statefulSet, t.StatefulSet, objectName, "write the name of one StatefulSet")
	default:
		v.name(deployment, t.Deployment, objectName, "deployment: NAME, or statefulset: NAME; without a name there is no target")
	}
	v.name(key(at, "container"), t.Container, objectName, "write the container that has the flags and the image, such as container: app")
	if configMap := key(key(at, "flags"), "configmap"); v.pos.has(configMap) {
		v.name(configMap, t.Flags.ConfigMap, objectName, "write the name of one ConfigMap")
	}
	gitops := key(at, "gitops")
	switch g := t.GitOps; {
	case g == nil:
	case g.Flux != "" && g.ArgoCD != "":
		v.at(gitops, gitops+" has both flux and argocd: one tool applies an object", "remove one of them")
	case g.Flux != "":
		known(v, key(gitops, "flux"), g.Flux, FluxPause)
	case g.ArgoCD != "":
		known(v, key(gitops, "argocd"), g.ArgoCD, ArgoCDIgnore)
	default:
		v.at(gitops, gitops+" names no tool", "write {flux: pause} or {argocd: ignore}")
	}
}

// swarm judges a target in a Docker Swarm.
func (v *validator) swarm(at string, t *SwarmTarget) {
	v.name(key(at, "service"), t.Service, plainName, "write one service as docker service ls lists it, such as service: shop_web")
	stack, env := key(at, "stack_file"), key(at, "env_file")
	for path, value := range map[string]string{stack: t.StackFile, env: t.EnvFile} {
		if value != "" && !filepath.IsAbs(value) {
			v.at(path, fmt.Sprintf("%s: %q is not an absolute path", path, value), "write it like /srv/shop/"+filepath.Base(value))
		}
	}
	switch {
	case t.StackFile != "" && t.EnvFile == "":
		v.at(stack, env+" is missing", "write the file that has the stack file's variables, such as env_file: /srv/shop/shop.env")
	case t.StackFile == "" && t.EnvFile != "":
		v.at(env, stack+" is missing", "write the file that docker stack deploy takes, such as stack_file: /srv/shop/stack.yml")
	}
}

// path reports what is not the path of a web address.
func (v *validator) path(path, value string) {
	u, err := url.Parse(value)
	if err != nil || !strings.HasPrefix(value, "/") || strings.HasPrefix(value, "//") || u.Fragment != "" {
		v.at(path, fmt.Sprintf("%s: %q is not a path: each pod or task is asked at its own address", path, value), "write it like /health, and the port under port")
	}
}

// smoke judges the checks that must hold after an image was changed.
func (v *validator) smoke(list string, checks []SmokeCheck) {
	v.unique(list, len(checks), func(i int) string { return checks[i].Name })
	for i, s := range checks {
		path := item(list, i)
		if v.need(key(path, "name"), s.Name == "", "write what it shows, such as name: trends are listed") && strings.ContainsAny(s.Name, "\n\r\x00") {
			v.at(key(path, "name"), key(path, "name")+" holds a line break", "write it on one line")
		}
		if v.need(key(path, "url"), s.URL == "", "write the address to request, such as url: http://127.0.0.1:9000/api/trends") {
			v.web(key(path, "url"), s.URL)
		}
		if status := key(path, "status"); v.pos.has(status) && (s.Status < 100 || s.Status > 599) {
			v.at(status, fmt.Sprintf("%s: invalid HTTP status %d", status, s.Status), "write one from 100 to 599; the default is 200")
		}
	}
}

// web reports an address that is not one of the web, or holds a password.
func (v *validator) web(path, address string) {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		v.at(path, fmt.Sprintf("%s: %q is not an address of http or https with a host", path, address), "write it like http://127.0.0.1:9000/health/")
	case u.User != nil:
		v.at(path, path+": the address contains a user or password", "leave it out: a playbook must not contain secrets")
	}
}

func (v *validator) flags() {
	v.unique("flags", len(v.pb.Flags), func(i int) string { return v.pb.Flags[i].Name })
	for i, f := range v.pb.Flags {
		path := item("flags", i)
		if m := v.pb.Master(); f.Master && m.Name != f.Name {
			v.at(key(path, "master"), fmt.Sprintf("%s: %s is already the master flag", key(path, "master"), m.Name), "set it on one flag only")
		}
		v.name(key(path, "name"), f.Name, environment, "write "+environment.says)
		v.need(key(path, "off"), !v.pos.has(key(path, "off")), `write the value that turns the feature off, such as off: "0"`)
		for name, value := range map[string]string{"off": f.Off, "on": f.On, "default": f.Default} {
			if strings.ContainsAny(value, "\n\r\x00") {
				v.at(key(path, name), fmt.Sprintf("%s holds a line break or a NUL", key(path, name)), "write a value that fits on a line of .env")
			}
		}
		if at := key(path, "on"); v.pos.has(at) {
			v.on(at, &f)
		}
		if at := key(path, "launchdarkly"); f.LaunchDarkly != nil {
			v.name(key(at, "project"), f.LaunchDarkly.Project, plainName, "write the key of the flag's project, such as social-intel")
			v.name(key(at, "environment"), f.LaunchDarkly.Environment, plainName, "write the key of one environment, such as production")
			v.name(key(at, "key"), f.LaunchDarkly.Key, plainName, "write the flag's key as LaunchDarkly has it, such as analytics-enabled")
		}
		if at := key(path, "unleash"); f.Unleash != nil {
			v.unleash(path, at, f)
		}
	}
}

// on judges a value that turns a flag on.
func (v *validator) on(at string, f *Flag) {
	switch m := v.pb.Master(); {
	case f.On == "" || f.On == f.Off:
		v.at(at, fmt.Sprintf("%s is %q, which does not differ from off", at, f.On), `write the value that turns the feature on, such as on: "true"`)
	case f.Elsewhere():
		v.at(at, fmt.Sprintf("%s: the provider of %s has the value that turns it on", at, f.Name), "leave it out")
	case m.Name == f.Name:
		for i := range v.pb.Stages {
			s := &v.pb.Stages[i]
			if share, ok := s.Share(); !ok || share <= 0 || share > 1 {
				continue
			}
			if _, err := f.ValueIn(s); err != nil {
				traffic := key(item("stages", i), "traffic")
				problem, try := hint.Of(err)
				v.at(traffic, fmt.Sprintf("%s: %s", traffic, problem), try, at)
			}
		}
	}
}

func (v *validator) unleash(path, at string, f Flag) {
	v.name(key(at, "project"), f.Unleash.Project, plainName, "write the id of the flag's project, such as default")
	v.name(key(at, "environment"), f.Unleash.Environment, plainName, "write the name of one environment, such as production")
	v.name(key(at, "name"), f.Unleash.Name, plainName, "write the flag's name as Unleash has it, such as analytics-enabled")
	if f.LaunchDarkly != nil {
		v.at(at, fmt.Sprintf("%s: LaunchDarkly keeps this flag already", at), "leave out launchdarkly or unleash", key(path, "launchdarkly"))
	}
	if off, err := strconv.ParseBool(f.Off); v.pos.has(key(path, "off")) && (err != nil || off) {
		v.at(key(path, "off"), fmt.Sprintf("%s is %q, and a flag of Unleash is false when off", key(path, "off"), f.Off), `write off: "false"`)
	}
	if m := v.pb.Master(); m == nil || m.Name != f.Name {
		return
	}
	for i, s := range v.pb.Stages {
		if percent, err := strconv.ParseFloat(s.Traffic, 64); err == nil && math.Abs(percent*100-math.Round(percent*100)) > 1e-6 {
			traffic := key(item("stages", i), "traffic")
			v.at(traffic, fmt.Sprintf("%s: %s is not a whole percent, and Unleash supports only those", traffic, s.Traffic), `write 1% as "0.01"`, at)
		}
	}
}

func (v *validator) limits() {
	l := v.pb.Limits
	v.positive("limits.reopen_within", l.ReopenWithin)
	v.positive("limits.close_after", l.CloseAfter)
	if l.Breaker < 1 {
		v.at("limits.breaker", "limits.breaker is not above 0", "write how many failed steps in a row stop automation, such as 3")
	}
	for path, r := range map[string]Rate{"limits.per_target": l.PerTarget, "limits.per_service": l.PerService} {
		if l.Cooldown > model.Duration(r.Window) && r.Count > 1 {
			v.at("limits.cooldown", fmt.Sprintf("limits.cooldown (%s) is longer than the window of %s (%s)", l.Cooldown, path, r), "write a shorter cooldown", path)
		}
	}
	for path, c := range map[string]Confirm{"reversible": v.pb.Confirmation.Reversible, "disruptive": v.pb.Confirmation.Disruptive, "lossy": v.pb.Confirmation.Lossy} {
		known(v, key("confirmation", path), c, ConfirmIfReachable, ConfirmRequired)
	}
	if v.pb.Confirmation.Lossy == ConfirmIfReachable {
		v.at("confirmation.lossy", "confirmation.lossy: a step that loses data must not run while Prometheus cannot confirm the breach", "write lossy: required")
	}
	if least := 2 * v.pb.ScrapeInterval; v.pb.Watchdog.MaxAge < least || v.pb.Watchdog.MaxAge <= 0 {
		v.at("watchdog.max_age", fmt.Sprintf("watchdog.max_age (%s) is shorter than two scrapes (%s)", v.pb.Watchdog.MaxAge, least), "write "+cmp.Or(max(5*minute, least), least).String(), "scrape_interval")
	}
}
