package report

import (
	"cmp"
	"fmt"
	"html"
	"html/template"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// Size is what a plot is drawn for, in its own pixels; a page scales it to what room
// there is. The field takes four fifths of the width or more.
type Size struct {
	// name keeps the ids of two plots on one page apart.
	name        string
	width, left int
	inner       int // height of the field the line is in
	font        int
	// numbered: a mark has its number, from 1, and who shows the plot lists them.
	numbered bool
}

var (
	// Wide is for a desk and for a file.
	Wide = Size{"plot", 640, 64, 190, 11, false}
	// Narrow is for a phone that is held upright.
	Narrow = Size{"narrow", 360, 48, 180, 12, true}
	// small is for a line next to a value, without axes and words.
	small = Size{"small", 240, 4, 44, 11, false}
)

const (
	plotRight  = 12
	plotBottom = 36
	plotLane   = 15 // height of one row of marks' labels
	plotLanes  = 5  // rows of labels at most; a label that does not fit is left out
	plotChar   = 6.2
)

// plotStyle is what a plot's file brings with it; a page has the like in its
// own style sheet, since its policy takes none from elsewhere.
const plotStyle = `<style>@media (prefers-color-scheme: dark){` +
	`.plot-paper{fill:#16191d}.plot-text{fill:#d7dbe0}.plot-grid{stroke:#343a41}.plot-axis{stroke:#8a929b}` +
	`.plot-line{stroke:#6cb2ff}.plot-dot{fill:#6cb2ff}.plot-threshold{stroke:#ff8a80}.plot-threshold-text{fill:#ff8a80;stroke:#16191d}` +
	`.plot-mark{stroke:#e0b050}.plot-mark-text{fill:#e0b050}}</style>`

// PlotSVG draws a plot for a page: the line, the threshold, and what was done
// when. It needs nothing from elsewhere, and its colours are attributes, which
// the classes plot-* override.
func PlotSVG(p view.Plot, size Size) template.HTML {
	return template.HTML(drawPlot(p, size, "")) //nolint:gosec // every string in it went through plotText
}

// SmallSVG draws the line and the threshold only, to stand next to the value.
func SmallSVG(p view.Plot) template.HTML {
	c := &canvas{p: p, size: small, top: 2}
	c.scale()
	c.begin(small.inner + 4)
	c.threshold()
	c.line()
	c.WriteString(`</svg>`)
	return template.HTML(c.String()) //nolint:gosec // every string in it went through plotText
}

// PlotFile draws a plot as a file of its own.
func PlotFile(p view.Plot) []byte {
	return []byte(drawPlot(p, Wide, plotStyle) + "\n")
}

// canvas turns values and times into places.
type canvas struct {
	strings.Builder
	p           view.Plot
	size        Size
	top         float64
	least, most float64 // of the value axis
}

// right is where the field ends.
func (c *canvas) right() int {
	if c.size == small {
		return c.size.width - c.size.left
	}
	return c.size.width - plotRight
}

func (c *canvas) x(t time.Time) float64 {
	left, span := c.size.left, c.p.To.Sub(c.p.From)
	if span <= 0 {
		return float64(left)
	}
	share := float64(t.Sub(c.p.From)) / float64(span)
	return float64(left) + min(max(share, 0), 1)*float64(c.right()-left)
}

func (c *canvas) y(v float64) float64 {
	return c.top + float64(c.size.inner)*(1-(v-c.least)/(c.most-c.least))
}

func (c *canvas) add(format string, args ...any) { fmt.Fprintf(&c.Builder, format, args...) }

func drawPlot(p view.Plot, size Size, style string) string {
	lanes, used := plotLabels(p, size)
	c := &canvas{p: p, size: size, top: 10 + plotLane*float64(used)}
	ticks := c.scale()
	height := int(c.top) + size.inner + plotBottom
	c.begin(height)
	c.WriteString(style)
	for _, v := range ticks {
		c.add(`<line class="plot-grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#e3e6ea"/>`, size.left, c.right(), c.y(v), c.y(v))
		c.add(`<text class="plot-text" x="%d" y="%.1f" text-anchor="end" fill="#3a4149">%s</text>`, size.left-6, c.y(v)+4, plotText(remediation.Measure(v, p.Unit), 12))
	}
	c.times(height)
	c.marks(lanes)
	c.threshold()
	c.line()
	// Last, on a ground of its own: the line does not cross the words.
	dy := -5.0 // on the side where a good value is not
	if !p.Above {
		dy = 14
	}
	c.add(`<text class="plot-threshold-text" x="%d" y="%.1f" fill="#c62828" stroke="#ffffff" stroke-width="4" stroke-linejoin="round" paint-order="stroke" font-weight="600">%s</text>`,
		size.left+4, c.y(p.Threshold)+dy, plotText(bound(p), 40))
	c.WriteString(`</svg>`)
	return c.String()
}

// begin opens the picture, with what it shows in words.
func (c *canvas) begin(height int) {
	id := c.size.id(c.p)
	of := ""
	if c.p.Incident != "" {
		of = " of " + plotText(c.p.Incident, 80)
	}
	c.add(`<svg xmlns="http://www.w3.org/2000/svg" class="plot" role="img" aria-labelledby="%s-title %s-desc" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="%d">`,
		id, id, c.size.width, height, c.size.width, height, c.size.font)
	c.add(`<title id="%s-title">%s%s</title><desc id="%s-desc">%s</desc>`,
		id, plotText(c.p.Trigger, 80), of, id, plotText(plotWords(c.p), 2000))
	c.add(`<rect class="plot-paper" width="%d" height="%d" fill="#ffffff"/>`, c.size.width, height)
}

func (c *canvas) threshold() {
	y := c.y(c.p.Threshold)
	c.add(`<line class="plot-threshold" x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#c62828" stroke-width="1.5" stroke-dasharray="6 3"/>`, c.size.left, c.right(), y, y)
}

// scale chooses the value axis, and returns where its grid lies.
func (c *canvas) scale() []float64 {
	least, most := c.p.Threshold, c.p.Threshold
	for _, pt := range c.p.Points {
		least, most = min(least, pt.Value), max(most, pt.Value)
	}
	share := c.p.Unit == "ratio" && most > 0 && most <= 1
	if least > 0 && least < most/2 {
		least = 0
	}
	if most-least <= math.Abs(most)/1e6 { // one value: it lies between 0 and 1.25 times it
		least, most = min(0, least), max(0, most*1.25)
	}
	if most == least {
		most = least + 1
	}
	step := niceStep((most - least) / 4)
	c.least, c.most = math.Floor(least/step)*step, math.Ceil(most/step*1.02)*step
	if share { // none is above all of it
		c.most = min(c.most, 1)
	}
	var ticks []float64
	for i := 0; i <= 12; i++ {
		v := c.least + float64(i)*step
		if v > c.most+step/2 {
			break
		}
		ticks = append(ticks, v)
	}
	return ticks
}

// niceStep is 1, 2 or 5 times a power of ten, and at least least.
func niceStep(least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, n := range []float64{1, 2, 5} {
		if n*power >= least {
			return n * power
		}
	}
	return 10 * power
}

// plotSteps are the distances of the time axis's labels.
func plotSteps() []time.Duration {
	const day = 24 * time.Hour
	return []time.Duration{
		time.Second, 5 * time.Second, 15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute, 10 * time.Minute,
		15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 12 * time.Hour, day, 2 * day, 7 * day, 14 * day, 30 * day, 90 * day, 365 * day,
	}
}

// plotTick is one label of the time axis, in the middle of its place.
type plotTick struct {
	x    float64
	text string
}

// ticks are the labels of the time axis: six at most (on a phone four), and none runs into
// the next one. One that would leave the picture is left out.
func (c *canvas) ticks() []plotTick {
	const day = 24 * time.Hour
	span := c.p.To.Sub(c.p.From)
	few := span / 6
	if c.size.width < Wide.width {
		few = span / 4
	}
	for _, step := range append(plotSteps(), span+1) {
		form := "15:04"
		switch {
		case step%day == 0:
			form = "Jan 2"
		case span > day:
			form = "Jan 2 15:04"
		case step < time.Minute:
			form = "15:04:05"
		}
		width := c.size.words(form)
		if span <= 0 || step < few || float64(c.right()-c.size.left)*float64(step)/float64(span) < width+c.size.words("  ") {
			continue
		}
		var out []plotTick
		for t := c.p.From.UTC().Truncate(step); !t.After(c.p.To); t = t.Add(step) {
			if x := c.x(t); !t.Before(c.p.From) && x-width/2 >= 0 && x+width/2 <= float64(c.size.width) {
				out = append(out, plotTick{x, t.Format(form)})
			}
		}
		return out
	}
	return nil
}

// words is about how wide a text is.
func (s Size) words(text string) float64 {
	return float64(len([]rune(text))) * plotChar * float64(s.font) / float64(Wide.font)
}

// times draws the time axis.
func (c *canvas) times(height int) {
	base := c.top + float64(c.size.inner)
	c.add(`<line class="plot-axis" x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#6b747d"/>`, c.size.left, c.right(), base, base)
	for _, t := range c.ticks() {
		c.add(`<line class="plot-axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#6b747d"/>`, t.x, t.x, base, base+4)
		c.add(`<text class="plot-text" x="%.1f" y="%.1f" text-anchor="middle" fill="#3a4149">%s</text>`, t.x, base+16, t.text)
	}
	c.add(`<text class="plot-text" x="%d" y="%d" fill="#3a4149">%s</text>`, c.size.left, height-5, plotText(c.p.Trigger, c.size.width/12))
	c.add(`<text class="plot-text" x="%d" y="%d" text-anchor="end" fill="#3a4149">%s UTC</text>`, c.right(), height-5, c.p.From.UTC().Format("2006-01-02"))
}

// label places a mark's text; lane -1: there is no room for it.
type label struct {
	text string
	lane int
	left bool // the words end at the mark
}

// plotLabels gives each mark's words a row in which they run into no others, and into
// no mark's line, which goes down from its row; it says how many rows that takes.
func plotLabels(p view.Plot, size Size) (labels []label, used int) {
	c := &canvas{p: p, size: size}
	var ends [plotLanes]float64  // where the words of each row end
	var lines [plotLanes]float64 // where the last line that begins in it is
	for i, m := range p.Marks {
		text := cut(m.Label, 28)
		if size.numbered {
			text = strconv.Itoa(i + 1)
		}
		x, width := c.x(m.Time), float64(len([]rune(text)))*plotChar+8
		l := label{text: text, lane: -1, left: x+width > float64(size.width-2)}
		begin := x
		if l.left {
			begin = x - width
		}
		for i := range ends {
			crossed := slices.ContainsFunc(ends[i+1:], func(end float64) bool { return end > x }) ||
				l.left && slices.ContainsFunc(lines[:i+1], func(line float64) bool { return line > begin && line < x })
			if begin >= ends[i] && !crossed {
				l.lane, ends[i], used = i, max(x, begin+width), max(used, i+1)
				lines[i] = x
				break
			}
		}
		labels = append(labels, l)
	}
	return labels, used
}

func (c *canvas) marks(labels []label) {
	for i, m := range c.p.Marks {
		x, l := c.x(m.Time), labels[i]
		y := c.top
		if l.lane >= 0 {
			y = 8 + plotLane*float64(l.lane)
		}
		c.add(`<line class="plot-mark" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#8a5a00"/>`, x, x, y, c.top+float64(c.size.inner))
		if l.lane < 0 {
			continue
		}
		anchor, dx := "start", 3.0
		if l.left {
			anchor, dx = "end", -3
		}
		c.add(`<text class="plot-mark-text" x="%.1f" y="%.1f" text-anchor="%s" fill="#8a5a00">%s</text>`, x+dx, y+8, anchor, plotText(l.text, 28))
	}
}

// line draws the values: a line where they follow each other, dots where what
// lies between them is not known.
func (c *canvas) line() {
	step := time.Duration(c.p.Step)
	var run []remediation.Point
	flush := func() {
		switch {
		case len(run) == 1:
			c.add(`<circle class="plot-dot" cx="%.1f" cy="%.1f" r="3" fill="#1565c0"/>`, c.x(run[0].Time), c.y(run[0].Value))
		case len(run) > 1:
			c.WriteString(`<polyline class="plot-line" fill="none" stroke="#1565c0" stroke-width="2" stroke-linejoin="round" points="`)
			for i, pt := range run {
				if i > 0 {
					c.WriteByte(' ')
				}
				c.add("%.1f,%.1f", c.x(pt.Time), c.y(pt.Value))
			}
			c.WriteString(`"/>`)
		}
		run = run[:0]
	}
	for i, pt := range c.p.Points {
		if i > 0 && (step == 0 || pt.Time.Sub(c.p.Points[i-1].Time) > step+step/2) {
			flush()
		}
		run = append(run, pt)
	}
	flush()
	if len(c.p.Points) == 0 {
		c.add(`<text class="plot-text" x="%d" y="%.1f" text-anchor="middle" fill="#3a4149">no values</text>`, c.size.width/2, c.top+float64(c.size.inner)/2)
	}
}

// plotWords says in words what a plot shows, for those who do not see it.
func plotWords(p view.Plot) string {
	var b strings.Builder
	to, at := "15:04", "15:04:05" // within a day, the date was said
	if p.To.Sub(p.From) > 24*time.Hour {
		to, at = "2006-01-02 15:04", time.DateTime
	}
	fmt.Fprintf(&b, "%s from %s to %s UTC, %s.", remediation.Estimated(p.Trigger, p.Estimate), p.From.UTC().Format("2006-01-02 15:04"), p.To.UTC().Format(to), bound(p))
	if n := len(p.Points); n > 0 {
		last := "last " + remediation.Measure(p.Points[n-1].Value, p.Unit)
		if worst, found := p.Worst(); found {
			word, of := "lowest", ""
			if p.Above {
				word = "highest"
			}
			if p.Incident != "" {
				of = " in the incident,"
			}
			last = fmt.Sprintf("%s %s%s at %s, %s", word, remediation.Measure(worst.Value, p.Unit), of, worst.Time.UTC().Format(at), last)
		}
		b.WriteString(" " + strings.ToUpper(last[:1]) + last[1:] + ".")
	}
	for i, m := range p.Marks {
		sep := ","
		if i == 0 {
			sep = " Marks:"
		}
		fmt.Fprintf(&b, "%s %s at %s", sep, m.Label, m.Time.UTC().Format(at))
	}
	if p.Note != "" {
		b.WriteString(". Note: " + p.Note)
	}
	return b.String()
}

// bound is the threshold in words.
func bound(p view.Plot) string {
	if p.Above {
		return "threshold: above " + remediation.Measure(p.Threshold, p.Unit)
	}
	return "threshold: below " + remediation.Measure(p.Threshold, p.Unit)
}

// plotText makes words from outside safe in an SVG file: what XML does not
// take, or would turn the line round, is replaced.
func plotText(s string, most int) string {
	return html.EscapeString(cut(s, most))
}

// cut makes words printable, and at most n characters long.
func cut(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// id is a name for a plot's title that no other plot of a page has.
func (s Size) id(p view.Plot) string {
	return s.name + "-" + strings.Map(func(r rune) rune {
		if r < unicode.MaxASCII && (r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r)) {
			return r
		}
		return '-'
	}, cut(cmp.Or(p.Incident, p.Service)+"-"+p.Trigger, 100))
}
