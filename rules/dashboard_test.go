package rules_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"

	"github.com/locotoki/backout/rules"
)

// The types below are written from Grafana's description of the classic model,
// apart from those of the generator: what it writes must be what Grafana reads.
type board struct {
	UID, Title, Description, Timezone, Refresh string
	Tags                                       []string
	Editable                                   bool
	GraphTooltip, SchemaVersion                int
	Time                                       struct{ From, To string }
	Templating                                 struct {
		List []struct {
			Name, Label, Type, Query string
			Hide, Refresh            int
		}
	}
	Annotations struct {
		List []struct {
			Name, IconColor, Expr, Step, TitleFormat, TextFormat string
			Enable                                               bool
			Datasource                                           source
		}
	}
	Panels []boardPanel
}

type source struct{ Type, UID string }

type boardPanel struct {
	ID                       int
	Type, Title, Description string
	Datasource               source
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct {
		Defaults struct {
			Unit       string
			Thresholds struct {
				Mode  string
				Steps []struct {
					Color string
					Value *float64
				}
			}
			Custom struct {
				LineWidth       int
				ShowPoints      string
				ThresholdsStyle struct{ Mode string }
			}
		}
		Overrides []any
	}
	Options json.RawMessage
	Targets []struct {
		RefID, EditorMode, Expr, LegendFormat string
		Datasource                            source
		Range, Instant                        bool
	}
}

type timeseriesOptions struct {
	Legend struct {
		DisplayMode, Placement string
		ShowLegend             bool
		Calcs                  []string
	}
	Tooltip struct{ Mode, Sort string }
}

type statPanelOptions struct {
	ReduceOptions struct {
		Calcs  []string
		Values bool
	}
	ColorMode, GraphMode, TextMode string
}

type textPanelOptions struct{ Mode, Content string }

func strictly(t *testing.T, text []byte, into any) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		t.Fatal(err)
	}
}

const dashboards = "deploy/grafana/dashboards/"

func boards(t *testing.T) map[string]board {
	t.Helper()
	all := map[string]board{}
	for name, content := range generate(t, nil) {
		if uid, ok := strings.CutSuffix(name, ".json"); ok {
			var b board
			strictly(t, []byte(content), &b)
			all[strings.TrimPrefix(uid, dashboards)] = b
		}
	}
	return all
}

func TestEachDashboardOfThePlaybookHasTheUIDOfItsAddress(t *testing.T) {
	all := boards(t)
	want := []string{"backout"}
	for _, address := range defaultPlaybook(t).Dashboards {
		want = append(want, address[strings.LastIndex(address, "/")+1:])
	}
	if len(all) != len(want) || len(want) != 6 {
		t.Errorf("%d dashboards for %v", len(all), want)
	}
	for _, uid := range want {
		if all[uid].UID != uid {
			t.Errorf("%s has uid %q", uid, all[uid].UID)
		}
	}
}

func TestEachIndicatorIsOnTheDashboardThatItsRowNames(t *testing.T) {
	all := boards(t)
	for uid, indicators := range map[string][]string{
		"analytics-canary":    {"p95_latency", "error_rate"},
		"analytics-api":       {"cache_hit_rate", "vector_query_time"},
		"analytics-ux":        {"ml_inference_time"},
		"analytics-resources": {"database_cpu", "memory_usage", "cpu_usage"},
		"analytics-errors":    {"p1_errors"},
	} {
		var have []string
		for _, p := range all[uid].Panels {
			if p.Type == "timeseries" {
				have = append(have, p.Title)
			}
		}
		if !slices.Equal(have, indicators) {
			t.Errorf("%s shows %v, want %v", uid, have, indicators)
		}
	}
}

func TestTargetAlertAndRollbackAreLinesOnADashboard(t *testing.T) {
	all := boards(t)
	for _, c := range []struct{ uid, title, unit, lines string }{
		{"analytics-canary", "p95_latency", "s", "[0.5 green] [0.75 red] [0.8 orange]"},
		{"analytics-canary", "error_rate", "percentunit", "[0.001 green] [0.005 red] [0.01 red]"},
		{"analytics-resources", "database_cpu", "percentunit", "[0.6 green] [0.8 orange] [0.85 red]"},
		{"analytics-api", "cache_hit_rate", "percentunit", "[0.6 orange] [0.8 green]"},
		{"analytics-errors", "p1_errors", "short", "[0 red]"},
	} {
		i := slices.IndexFunc(all[c.uid].Panels, func(p boardPanel) bool { return p.Title == c.title })
		if i < 0 {
			t.Errorf("%s is not on %s", c.title, c.uid)
			continue
		}
		d := all[c.uid].Panels[i].FieldConfig.Defaults
		var lines []string
		for _, s := range d.Thresholds.Steps[1:] {
			lines = append(lines, fmt.Sprintf("[%v %s]", *s.Value, s.Color))
		}
		if d.Unit != c.unit || strings.Join(lines, " ") != c.lines || d.Custom.ThresholdsStyle.Mode != "line" {
			t.Errorf("%s: %s %v %q, want %s %s as lines", c.title, d.Unit, lines, d.Custom.ThresholdsStyle.Mode, c.unit, c.lines)
		}
	}
}

func TestDashboardsKeepTheRulesOfGrafanasModel(t *testing.T) {
	ours := source{"prometheus", "${datasource}"}
	for uid, b := range boards(t) {
		t.Run(uid, func(t *testing.T) {
			if b.SchemaVersion != 39 || b.Title == "" || b.Time.From == "" || b.Time.To != "now" || b.Timezone != "browser" || b.Editable {
				t.Errorf("head: %+v", b)
			}
			if l := b.Templating.List; len(l) != 1 || l[0].Name != "datasource" || l[0].Type != "datasource" || l[0].Query != "prometheus" {
				t.Errorf("variables: %+v", l)
			}
			for _, a := range b.Annotations.List {
				if a.Datasource != ours || !a.Enable || a.Name == "" || a.IconColor == "" || a.TitleFormat == "" {
					t.Errorf("annotation: %+v", a)
				}
			}
			if len(b.Annotations.List) == 0 {
				t.Error("no annotations")
			}
			cells := map[[2]int]string{}
			for i, p := range b.Panels {
				if p.ID != i+1 || p.Title == "" {
					t.Errorf("panel %d has id %d and title %q", i+1, p.ID, p.Title)
				}
				g := p.GridPos
				if g.X < 0 || g.Y < 0 || g.W < 1 || g.H < 1 || g.X+g.W > 24 {
					t.Errorf("%s lies at %+v, outside of the 24 columns", p.Title, g)
				}
				for x := g.X; x < g.X+g.W; x++ {
					for y := g.Y; y < g.Y+g.H; y++ {
						if other := cells[[2]int{x, y}]; other != "" {
							t.Fatalf("%s lies on %s", p.Title, other)
						}
						cells[[2]int{x, y}] = p.Title
					}
				}
				panelRules(t, p, ours)
			}
		})
	}
}

func panelRules(t *testing.T, p boardPanel, ours source) {
	t.Helper()
	switch p.Type {
	case "timeseries":
		strictly(t, p.Options, &timeseriesOptions{})
	case "stat":
		strictly(t, p.Options, &statPanelOptions{})
	case "text":
		strictly(t, p.Options, &textPanelOptions{})
		return
	default:
		t.Errorf("%s is a %q, which is no panel that we know", p.Title, p.Type)
	}
	if p.Datasource != ours || len(p.Targets) == 0 {
		t.Errorf("%s asks %+v of %+v", p.Title, p.Targets, p.Datasource)
	}
	units := []string{"s", "ms", "percent", "percentunit", "bytes", "cps", "short"}
	if !slices.Contains(units, p.FieldConfig.Defaults.Unit) {
		t.Errorf("%s has the unit %q", p.Title, p.FieldConfig.Defaults.Unit)
	}
	th := p.FieldConfig.Defaults.Thresholds
	if th.Mode != "absolute" || len(th.Steps) == 0 || th.Steps[0].Value != nil {
		t.Fatalf("%s: thresholds %+v: the first has no value, for it is where the scale begins", p.Title, th)
	}
	for i := 1; i < len(th.Steps); i++ {
		v, before := th.Steps[i].Value, th.Steps[i-1].Value
		if v == nil || before != nil && *before >= *v || th.Steps[i].Color == "" {
			t.Errorf("%s: the thresholds do not ascend", p.Title)
		}
	}
	refs := map[string]bool{}
	for _, q := range p.Targets {
		if refs[q.RefID] || q.RefID == "" || q.Datasource != ours || q.Range == q.Instant || q.EditorMode != "code" || q.LegendFormat == "" {
			t.Errorf("%s: target %+v", p.Title, q)
		}
		refs[q.RefID] = true
	}
}

// metricsOf are the metrics that an expression reads.
func metricsOf(t *testing.T, text string) []string {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var names []string
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		if s, ok := n.(*parser.VectorSelector); ok {
			names = append(names, s.Name)
		}
		return nil
	})
	return names
}

// exported are the names that backout's own source gives its metrics.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{"backout_build_info": true} // prometheus/common makes that one
	literal := regexp.MustCompile(`(?:Name:|NewDesc\()\s*"((?:backout|rollout)_[a-z_]+)"`)
	for _, dir := range []string{"../remediation/ledger", "../remediation/engine", "../receiver"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range literal.FindAllStringSubmatch(string(text), -1) {
				names[m[1]] = true
			}
		}
	}
	return names
}

func TestDashboardsAskOnlyForWhatSomebodyExports(t *testing.T) {
	known := exported(t)
	known["ALERTS"] = true
	pb := defaultPlaybook(t)
	for _, ind := range pb.Indicators {
		for _, m := range metricsOf(t, pb.Expand(ind.Query, 300e9, 1)) {
			known[m] = true
		}
	}
	for _, r := range rulesOf(t, generate(t, nil)["rules/social-intel.rules.yml"]).Groups[0].Rules {
		known[r.Record] = true
	}
	base := regexp.MustCompile(`^(backout_[a-z_]+_seconds)_(bucket|sum|count)$`)
	asked := 0
	for uid, b := range boards(t) {
		var all []string
		for _, a := range b.Annotations.List {
			all = append(all, a.Expr)
		}
		for _, p := range b.Panels {
			for _, q := range p.Targets {
				all = append(all, q.Expr)
			}
		}
		for _, text := range all {
			for _, m := range metricsOf(t, text) {
				asked++
				if !known[base.ReplaceAllString(m, "$1")] {
					t.Errorf("%s asks for %s, which neither the playbook, nor its rules, nor backout has", uid, m)
				}
			}
		}
	}
	if asked < 50 {
		t.Errorf("only %d metrics are asked for", asked)
	}
}

// Go's decoder does not mind a key's case, and Grafana does.
func TestDashboardsSpellGrafanasKeysExactly(t *testing.T) {
	known := strings.Fields(`uid title description tags timezone editable graphTooltip schemaVersion refresh time from to templating
		annotations list panels name label type query hide datasource enable iconColor expr step titleFormat textFormat id gridPos
		h w x y fieldConfig defaults unit thresholds mode steps color value custom lineWidth showPoints thresholdsStyle overrides
		options legend displayMode placement showLegend calcs tooltip sort reduceOptions values colorMode graphMode textMode content
		targets refId editorMode legendFormat range instant`)
	keys := regexp.MustCompile(`(?m)^\s*"([^"]+)": `)
	for name, content := range generate(t, nil) {
		if !strings.HasSuffix(name, ".json") {
			continue
		}
		for _, m := range keys.FindAllStringSubmatch(content, -1) {
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s has the key %q", name, m[1])
			}
		}
	}
}

func TestADashboardWhoseAddressCannotBeAnUIDIsRefused(t *testing.T) {
	for address, want := range map[string]string{
		"https://grafana.example.com/d/a b":                         "cannot be a dashboard's uid",
		"https://grafana.example.com/d/" + strings.Repeat("x", 41):  "cannot be a dashboard's uid",
		"https://grafana.example.com/d/backout":                     "is that of backout",
		"https://grafana.example.com/d/..%2F..%2Fetc/title-of-mine": "cannot be a dashboard's uid",
	} {
		pb := smallPlaybook()
		pb.Dashboards = map[string]string{"Service Health": address}
		if _, err := (rules.Settings{}).Generate(pb); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
