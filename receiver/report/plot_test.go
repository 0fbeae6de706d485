package report

import (
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/receiver/golden"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

var plotOpened = time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC)

// breachPlot is an error rate that rises, is backed out and falls.
func breachPlot() view.Plot {
	p := view.Plot{
		Incident: "inc-7", Trigger: "error_rate", Unit: "ratio", Threshold: 0.01, Above: true,
		From: plotOpened.Add(-15 * time.Minute), To: plotOpened.Add(25 * time.Minute), Step: model.Duration(15 * time.Second),
	}
	at := func(d time.Duration) time.Time { return plotOpened.Add(d) }
	p.Marks = []view.Mark{
		{Time: at(0), Kind: audit.KindOpened, Label: "opened"},
		{Time: at(500 * time.Millisecond), Kind: audit.KindIntent, Label: "1-flag_off"},
		{Time: at(7 * time.Minute), Kind: audit.KindIntent, Label: "2-image_retag"},
		{Time: at(14 * time.Minute), Kind: audit.KindRecovered, Label: "recovered"},
		{Time: at(24 * time.Minute), Kind: audit.KindClosed, Label: "closed"},
	}
	for t := p.From; !t.After(p.To); t = t.Add(15 * time.Second) {
		d := t.Sub(plotOpened)
		v := 0.001
		switch {
		case d > 3*time.Minute && d < 5*time.Minute:
			continue // a gap
		case d > 14*time.Minute:
			v = 0.0005
		case d > 0:
			v = 0.032 - 0.002*d.Minutes()
		case d > -6*time.Minute:
			v = 0.001 + (6+d.Minutes())*0.0042
		}
		p.Points = append(p.Points, remediation.Point{Time: t, Value: v})
	}
	return p
}

// evidencePlot has what an audit log holds: few values, and no line between them.
func evidencePlot() view.Plot {
	p := breachPlot()
	p.Step, p.Note, p.Unit, p.Above, p.Threshold = 0, "these values are from the audit log", "", false, 99.5
	p.Points = []remediation.Point{{Time: plotOpened, Value: 91.25}, {Time: plotOpened.Add(7 * time.Minute), Value: 97}, {Time: plotOpened.Add(14 * time.Minute), Value: 100}}
	return p
}

func TestPlotsAreDrawnAsTheyWere(t *testing.T) {
	golden.Compare(t, "plot.svg", PlotFile(breachPlot()))
	golden.Compare(t, "plot-evidence.svg", PlotFile(evidencePlot()))
}

// elements reads an SVG file strictly, and returns its elements' names and its text.
func elements(t *testing.T, svg string) (names []string, text string) {
	t.Helper()
	dec := xml.NewDecoder(strings.NewReader(svg))
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return names, text
		}
		if err != nil {
			t.Fatalf("not well-formed: %v in %s", err, svg)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			names = append(names, tok.Name.Local)
			for _, a := range tok.Attr {
				if a.Name.Local == "href" || strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "style" || strings.Contains(a.Value, "url(") {
					t.Errorf("attribute %s=%q", a.Name.Local, a.Value)
				}
			}
		case xml.CharData:
			text += string(tok) + "\n"
		}
	}
}

func TestAPlotSaysInWordsWhatItShows(t *testing.T) {
	svg := string(PlotSVG(breachPlot(), Wide))
	names, text := elements(t, svg)
	if !strings.Contains(svg, `role="img"`) || !strings.Contains(strings.Join(names, " "), "title desc") {
		t.Errorf("no image with a title and a description: %v", names)
	}
	for _, want := range []string{
		"error_rate of inc-7", "threshold: above 1%", "1-flag_off", "2-image_retag", "recovered", "03:10", "2026-11-22 UTC",
		"Highest 3.1", "opened at 03:00:00", "2%",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said in %s", want, text)
		}
	}
	if strings.Contains(svg, "<style") {
		t.Error("a page's plot brings a style sheet, which the page's policy refuses")
	}
	if n := strings.Count(svg, "<polyline"); n != 2 {
		t.Errorf("%d lines, want one on either side of the gap", n)
	}
	if n := strings.Count(string(PlotSVG(evidencePlot(), Wide)), "<circle"); n != 3 {
		t.Errorf("%d dots of evidence, want 3", n)
	}
}

// The time before an incident, and after it, may be another incident's.
func TestThePlotsWorstIsOfItsIncident(t *testing.T) {
	p := breachPlot()
	for i := range p.Points[:20] {
		p.Points[i].Value = 0.99
	}
	p.Points[len(p.Points)-1].Value = 0.98
	if _, text := elements(t, string(PlotSVG(p, Wide))); !strings.Contains(text, "Highest 3.15% in the incident, at 03:00:15, last 98%.") {
		t.Error(text)
	}
	p.Incident, p.Marks = "", nil
	if _, text := elements(t, string(PlotSVG(p, Wide))); !strings.Contains(text, "Highest 99% at 02:45:00, last 98%.") {
		t.Error(text)
	}
}

func TestTheAxisOfAShareEndsAtAllOfIt(t *testing.T) {
	p := breachPlot()
	for _, c := range []struct {
		value, most float64
		unit        alerts.Unit
	}{{0.99, 1, alerts.Ratio}, {1, 1, alerts.Ratio}, {0.3, 0.4, alerts.Ratio}, {1.2, 1.5, alerts.Ratio}, {0.99, 1.5, alerts.Seconds}} {
		p.Unit, p.Points[0].Value = c.unit, c.value
		drawn := &canvas{p: p, size: Wide}
		if ticks := drawn.scale(); drawn.most != c.most || ticks[len(ticks)-1] > c.most+1e-9 {
			t.Errorf("%g %s: the axis ends at %g, its ticks are %v", c.value, c.unit, drawn.most, ticks)
		}
	}
}

var place = regexp.MustCompile(`(?:x|y|x1|x2|y1|y2|cx|cy)="(-?[0-9.]+|NaN|[-+]Inf)"`)

func TestAPlotOfAnythingStaysInItsFrame(t *testing.T) {
	hostile := "</svg><script>alert(1)</script>\x1b[2J\x00\u202e\"'&" + strings.Repeat("x", 10_000)
	for name, edit := range map[string]func(*view.Plot){
		"hostile words": func(p *view.Plot) {
			p.Trigger, p.Incident, p.Note, p.Unit, p.Marks[0].Label = hostile, hostile, hostile, "\"><b>", hostile
		},
		"nothing":     func(p *view.Plot) { p.Points, p.Marks = nil, nil },
		"no time":     func(p *view.Plot) { p.To = p.From },
		"backwards":   func(p *view.Plot) { p.To = p.From.Add(-time.Hour) },
		"one second":  func(p *view.Plot) { p.To = p.From.Add(time.Second) },
		"three years": func(p *view.Plot) { p.To = p.From.Add(3 * 365 * 24 * time.Hour) },
		"all zero":    func(p *view.Plot) { p.Threshold = 0; p.Points = []remediation.Point{{Time: p.From}} },
		"below zero": func(p *view.Plot) {
			p.Threshold = -5
			p.Points = []remediation.Point{{Time: p.From, Value: -1e6}}
		},
		"huge":            func(p *view.Plot) { p.Points = []remediation.Point{{Time: p.From, Value: 1e300}} },
		"tiny":            func(p *view.Plot) { p.Threshold = 1e-300; p.Points = nil },
		"the far future":  func(p *view.Plot) { p.Points[0].Time = p.To.Add(100 * time.Hour) },
		"a hundred marks": func(p *view.Plot) { p.Marks = append(p.Marks, make([]view.Mark, 100)...) },
	} {
		t.Run(name, func(t *testing.T) {
			p := breachPlot()
			edit(&p)
			svg := string(PlotFile(p))
			names, _ := elements(t, svg)
			for _, n := range names {
				if n == "script" || n == "b" {
					t.Errorf("element %s", n)
				}
			}
			if len(svg) > 64<<10 || strings.ContainsAny(svg, "\x1b\x00\u202e") {
				t.Errorf("%d bytes of %.300q", len(svg), svg)
			}
			for _, m := range place.FindAllStringSubmatch(svg, -1) {
				if f, err := strconv.ParseFloat(m[1], 64); err != nil || f < -10 || f > 1000 {
					t.Errorf("place %s", m[0])
				}
			}
		})
	}
}

var (
	markText = regexp.MustCompile(`<text class="plot-mark-text" x="([0-9.]+)" y="([0-9.]+)" text-anchor="(start|end)"[^>]*>([^<]*)<`)
	markLine = regexp.MustCompile(`<line class="plot-mark" x1="([0-9.]+)" x2="[0-9.]+" y1="([0-9.]+)"`)
	field    = regexp.MustCompile(`<line class="plot-grid" x1="([0-9.]+)" x2="([0-9.]+)"`)
)

func TestALabelCrossesNeitherAnotherNorTheLineOfAMark(t *testing.T) {
	number := func(s string) float64 {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, size := range []Size{Wide, Narrow} {
		shown := 0
		for apart := 20 * time.Second; apart < 8*time.Minute; apart += 20 * time.Second {
			p := breachPlot()
			for i := range p.Marks {
				p.Marks[i].Time = plotOpened.Add(time.Duration(i) * apart)
			}
			svg := string(PlotSVG(p, size))
			texts := markText.FindAllStringSubmatch(svg, -1)
			shown += len(texts)
			for i, m := range texts {
				begin, y, end := number(m[1]), number(m[2]), number(m[1])
				if width := float64(len(m[4])) * 6; m[3] == "start" {
					end += width
				} else {
					begin -= width
				}
				for j, o := range texts {
					if i != j && o[2] == m[2] && number(o[1]) > begin && number(o[1]) < end {
						t.Errorf("%s apart on %s: %s runs into %s", apart, size.name, m[4], o[4])
					}
				}
				for _, l := range markLine.FindAllStringSubmatch(svg, -1) {
					if x := number(l[1]); x > begin && x < end && number(l[2]) < y-4 {
						t.Errorf("%s apart on %s: a line crosses %s", apart, size.name, m[4])
					}
				}
			}
			g := field.FindStringSubmatch(svg)
			if share := (number(g[2]) - number(g[1])) / float64(size.width); share < 0.8 {
				t.Errorf("on %s the field has %.0f%% of the width", size.name, share*100)
			}
		}
		if shown < 80 {
			t.Errorf("on %s only %d labels are shown", size.name, shown)
		}
	}
}

var axisText = regexp.MustCompile(`<text class="plot-text" x="([0-9.]+)" y="([0-9.]+)" text-anchor="middle"[^>]*>([^<]*)<`)

func TestTheTimeAxisIsLegibleOverAnyTime(t *testing.T) {
	const day = 24 * time.Hour
	spans := []time.Duration{45 * time.Second, 40 * time.Minute, 7 * time.Hour, 23 * time.Hour, 30 * time.Hour, 2 * day, 3 * day, 5 * day, 7 * day, 14 * day, 30 * day, 92 * day, 800 * day}
	for _, size := range []Size{Wide, Narrow} {
		for _, span := range spans {
			for _, hour := range []time.Duration{0, 5 * time.Hour, 23*time.Hour + 50*time.Minute} {
				p := breachPlot()
				p.From, p.Marks = plotOpened.Truncate(day).Add(hour), nil
				p.To = p.From.Add(span)
				found := axisText.FindAllStringSubmatch(string(PlotSVG(p, size)), -1)
				end := -1.0
				for _, m := range found {
					x, err := strconv.ParseFloat(m[1], 64)
					half := float64(len(m[3])) * 0.56 * float64(size.font) / 2 // the width of a digit
					if err != nil || x-half < 0 || x+half > float64(size.width) || x-half < end+4 {
						t.Errorf("%s on %s: %q at %s is cut off, or too near to the one before", span, size.name, m[3], m[1])
					}
					if end = x + half; span > day && !strings.Contains(m[3], " ") {
						t.Errorf("%s on %s: %q has no date", span, size.name, m[3])
					}
				}
				if len(found) < 2 || len(found) > 7 {
					t.Errorf("%s on %s has %d labels", span, size.name, len(found))
				}
			}
		}
	}
}

func TestTheWordsOfAPlotOverDaysHaveDates(t *testing.T) {
	p := breachPlot()
	p.To = p.From.Add(7 * 24 * time.Hour)
	_, text := elements(t, string(PlotSVG(p, Wide)))
	for _, want := range []string{"to 2026-11-29 02:45 UTC", "at 2026-11-22 03:00:15, last", "opened at 2026-11-22 03:00:00"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not said in %s", want, text)
		}
	}
}

func TestMeasuresHaveTheirUnits(t *testing.T) {
	for _, tc := range []struct {
		v    float64
		unit string
		want string
	}{
		{0.0123456, "ratio", "1.235%"},
		{2.401e-10, "ratio", "0%"},
		{-2.401e-8, "percent", "0%"},
		{1.056e-8, "ratio", "0%"}, // none of the requests failed
		{1e-7, "ratio", "0.00001%"},
		{2e-10, "seconds", "0.0000002 ms"},
		{85, "percent", "85%"},
		{0.75, "seconds", "750 ms"},
		{1.5, "seconds", "1.5 s"},
		{300, "milliseconds", "300 ms"},
		{3 << 20, "bytes", "3 MiB"},
		{1 << 50, "bytes", "1024 TiB"},
		{12, "per_second", "12/s"},
		{1e6, "count", "1000000"},
		{0.1 + 0.2, "", "0.3"},
	} {
		if got := remediation.Measure(tc.v, alerts.Unit(tc.unit)); got != tc.want {
			t.Errorf("%v %s is %s, want %s", tc.v, tc.unit, got, tc.want)
		}
	}
}
