package draft

import (
	"cmp"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
)

// release answers which version is rolled out, and which is before it.
func (d *document) release() {
	tag := d.Service.Tag
	if tag == "latest" {
		tag = "" // no version
	}
	switch {
	case d.Options.Previous != "":
		d.Previous = known(d.Options.Previous)
	case tag != "" && tag != d.Options.Version:
		d.Previous = guessed(tag, "it is what the compose file names now")
	default:
		d.Previous = missing("the image's tag before the release; the compose file names no version")
	}
	switch next := nextVersion(d.Previous.value); {
	case d.Options.Version != "":
		d.Version = known(d.Options.Version)
	case next != "":
		d.Version = guessed(next, "the version after %s; write the one that you roll out", d.Previous.value)
	default:
		d.Version = missing("the image's tag that you roll out")
	}
}

var lastNumbers = regexp.MustCompile(`^(.*?[0-9]+\.|[^0-9]*)([0-9]+)(\.[0-9]+)?$`)

// nextVersion raises the last number, or the one before it of three or more: 3.2 becomes
// 3.3, v1.4.2 becomes v1.5.0. It is "" if the version does not end in numbers.
func nextVersion(version string) string {
	m := lastNumbers.FindStringSubmatch(version)
	if m == nil || len(m[2]) > 9 {
		return ""
	}
	n, err := strconv.Atoi(m[2])
	if err != nil {
		return ""
	}
	if m[3] != "" {
		m[3] = ".0"
	}
	return m[1] + strconv.Itoa(n+1) + m[3]
}

var healthURL = regexp.MustCompile(`https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(?::([0-9]+))?(/[^\s"'|;&)?#]*)?(\?)?`)

// longestProbe leaves a step, which has 5 minutes, time to change the service.
const longestProbe = 4 * time.Minute

// probe answers where the service says that it is healthy.
func (d *document) probe() {
	s := d.Service
	d.Timeout = known("30s")
	if takes := min((s.HealthcheckTakes + 10*time.Second - 1).Truncate(10*time.Second), longestProbe); takes > 30*time.Second {
		d.Timeout = guessed(model.Duration(takes).String(), "the first answer of the service's healthcheck may take %s", model.Duration(s.HealthcheckTakes))
	}
	m := healthURL.FindStringSubmatch(strings.Join(s.Healthcheck, " "))
	if m == nil {
		switch {
		case len(s.Ports) == 0:
			d.Health = missing("an address that answers 200 while the service is healthy; the compose file publishes no port of the service")
		case len(s.Healthcheck) > 0:
			d.Health = missing("an address that answers 200 while the service is healthy; its healthcheck requests none")
		default:
			d.Health = s.Ports[0].answer("/health", "the compose file has no healthcheck; write the path that the service has")
		}
		return
	}
	port := uint32(80)
	if n, err := strconv.ParseUint(m[1], 10, 16); err == nil {
		port = uint32(n)
	}
	for _, p := range s.Ports {
		if p.Target == port {
			d.Health = p.answer(cmp.Or(m[2], "/"))
			if m[3] != "" {
				d.Health = p.answer(cmp.Or(m[2], "/"), "the healthcheck's query is left out, since it may hold a secret")
			}
			return
		}
	}
	d.Health = missing("the healthcheck requests port %d, which the compose file does not publish; publish it on 127.0.0.1", port)
}

// answer is a path of the port; why are the reasons why it is guessed.
func (p Port) answer(path string, why ...string) answer {
	if p.Last != "" {
		why = append(why, fmt.Sprintf("%s is the first of the ports %s-%s; after a change, each container is asked by its own", p.Published, p.Published, p.Last))
	}
	if len(why) == 0 {
		return known(p.address(path))
	}
	return guessed(p.address(path), "%s", strings.Join(why, "; "))
}

// all are the port, or those of its range.
func (p Port) all() []string {
	first, err := strconv.ParseUint(p.Published, 10, 16)
	last, lerr := strconv.ParseUint(p.Last, 10, 16)
	if err != nil || lerr != nil {
		return []string{p.Published}
	}
	var all []string
	for n := first; n <= last; n++ {
		all = append(all, strconv.FormatUint(n, 10))
	}
	return all
}

// address is a path of the port, as this machine reaches it.
func (p Port) address(path string) string {
	host := p.Host
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return (&url.URL{Scheme: "http", Host: net.JoinHostPort(host, p.Published)}).String() + path
}

// flag is a variable that looks like a feature flag.
type flag struct {
	Name         string
	Off, On, Now string // On is "" where the values are numbers
}

var (
	flagName     = regexp.MustCompile(`^(FEATURE|FF|FLAG|ENABLE|EXPERIMENT)_|_(ENABLED|FLAG|FEATURE)$`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	onOf         = map[string]string{"false": "true", "off": "on", "no": "yes"}
	offOf        = map[string]string{"0": "0", "1": "0", "true": "false", "false": "false", "on": "off", "off": "off", "yes": "no", "no": "no"}
)

// flagOf takes a variable for a flag by its name, if its value turns on or off, or is a
// share of the traffic.
func flagOf(name, value string) (f flag, share, ok bool) {
	off := offOf[strings.ToLower(value)]
	if n, err := strconv.ParseFloat(value, 64); err == nil && n > 0 && n < 1 {
		off, share = "0", true
	}
	on := onOf[off]
	if value == strings.ToUpper(value) {
		off, on = strings.ToUpper(off), strings.ToUpper(on)
	}
	if on != "" && value != off {
		on = value
	}
	return flag{name, off, on, value}, share, off != "" && flagName.MatchString(name) && variableName.MatchString(name)
}

// mostSteps is how many flags the drafted plan turns off: with the image and the schema,
// as many steps as limits.per_service lets run.
const mostSteps = 4

// flags finds the service's feature flags.
func (d *document) flags() {
	for _, name := range slices.Sorted(maps.Keys(d.Service.Variables)) {
		value := d.Service.Variables[name]
		f, share, ok := flagOf(name, value)
		switch {
		case ok:
			d.Flags = append(d.Flags, f)
		case f.Off != "" && value != "0" && value != "1" && !share && variableName.MatchString(name):
			d.Switches = append(d.Switches, name)
		}
		if ok && share && !d.Share { // the first flag is the master
			last := len(d.Flags) - 1
			d.Flags[0], d.Flags[last], d.Share = d.Flags[last], d.Flags[0], true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(d.Service.Others)) {
		if _, _, ok := flagOf(name, d.Service.Others[name]); ok {
			d.NotGiven = append(d.NotGiven, name)
		}
	}
}

// PlanFlags are those that the drafted plan turns off.
func (d *document) PlanFlags() []flag { return d.Flags[:min(len(d.Flags), mostSteps)] }

// OtherFlags are the rest.
func (d *document) OtherFlags() []flag { return d.Flags[len(d.PlanFlags()):] }

// Retag says how the image is put back: "variable", "latest", or "" if it cannot be.
func (d *document) Retag() string {
	switch {
	case d.Service.TagVariable != "":
		return "variable"
	case d.Service.Tag == "latest":
		return "latest"
	}
	return ""
}

// NoRetag is why the image cannot be put back.
func (d *document) NoRetag() string {
	if d.Service.Tag == "" {
		return "the compose file names no image"
	}
	return "the compose file names the tag " + d.Service.Tag + " itself; write image: NAME:${TAG}, with TAG in .env"
}

// DSNFile is the guessed file of the database's address.
func (d *document) DSNFile() string { return "/etc/backout/" + d.Service.Name + ".dsn" }

// Role is the guessed database role of the application.
func (d *document) Role() string {
	return strings.NewReplacer("-", "_", ".", "_").Replace(d.Service.Name)
}

// flyway is a folder of Flyway's scripts.
type flyway struct {
	Dir string // absolute
	// Newest is the newest version, Before the one before it.
	Newest, Before string
	// Undo: the newest version has an undo script.
	Undo bool
}

var flywayScript = regexp.MustCompile(`^([VU])([0-9]+(?:[._][0-9]+)*)__.+\.sql$`)

// deepest is how many folders below the project Flyway's scripts are looked for.
const deepest = 6

// migrations finds Flyway's scripts below the project.
func (d *document) migrations() {
	if d.Service.Migrations == nil {
		return
	}
	scripts := map[string]map[string][]string{} // by folder, and V or U
	// A folder that cannot be read has no scripts for us.
	_ = fs.WalkDir(d.Service.Migrations, ".", func(name string, e fs.DirEntry, err error) error { //nolint:errcheck // see above
		switch {
		case err != nil, e.IsDir() && name != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "node_modules" || strings.Count(name, "/") >= deepest):
			return fs.SkipDir
		case e.IsDir():
			return nil
		}
		if m := flywayScript.FindStringSubmatch(e.Name()); m != nil {
			dir := path.Dir(name)
			if scripts[dir] == nil {
				scripts[dir] = map[string][]string{}
			}
			scripts[dir][m[1]] = append(scripts[dir][m[1]], strings.ReplaceAll(m[2], "_", "."))
		}
		return nil
	})
	for _, dir := range slices.Sorted(maps.Keys(scripts)) {
		versions := scripts[dir]["V"]
		if len(versions) < 2 {
			continue // no version to go back to
		}
		slices.SortFunc(versions, compareVersions)
		f := &flyway{Dir: filepath.Join(d.Service.ProjectDir, filepath.FromSlash(dir)), Newest: versions[len(versions)-1], Before: versions[len(versions)-2]}
		f.Undo = slices.Contains(scripts[dir]["U"], f.Newest)
		if d.Flyway == nil || f.Undo && !d.Flyway.Undo {
			d.Flyway = f
		}
	}
}

func compareVersions(a, b string) int {
	return slices.CompareFunc(strings.Split(a, "."), strings.Split(b, "."), func(a, b string) int {
		x, y := strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
		return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
	})
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
