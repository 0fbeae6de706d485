package receiver

import (
	"context"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/locotoki/backout/receiver/report"
	"github.com/locotoki/backout/remediation/view"
)

// nowPage shows each service with its open incidents, what needs a person first.
func (s *Server) nowPage(c echo.Context, _ string) error {
	if _, err := query(c, "done"); err != nil {
		return err
	}
	o, err := s.incidents.Overview(c.Request().Context())
	if err != nil {
		return err
	}
	f, err := s.liveFrame(c, "Now", o)
	if err != nil {
		return err
	}
	data := struct {
		frame
		view.Status
		Headline, Tone string
		// Person are the first lines that somebody must act on, PersonMore how many follow.
		Person     []view.StatusLine
		PersonMore int
		// Listed: the headline does not say what Person says.
		Listed bool
		Cards  []serviceCard
		// Folded are the services that have no card.
		Folded []folded
		// Crowd are the open incidents where they are too many to be seen together,
		// CrowdMore how many are not listed.
		Crowd     []crowded
		CrowdMore int
		Recent    []view.Story
	}{frame: f, Status: view.NewStatus(o)}
	data.Headline, data.Tone = data.Status.Headline()
	data.Person = data.NeedsPerson()
	data.PersonMore = max(len(data.Person)-shownLines, 0)
	data.Person = data.Person[:len(data.Person)-data.PersonMore]
	data.Listed = len(data.Person) > 1 || len(data.Person) == 1 && data.Person[0].Short != ""
	all := serviceCards(o)
	data.Cards, data.Folded = fold(all)
	s.measure(c.Request().Context(), data.Cards)
	for i, card := range data.Cards {
		card.shownOnce()
		if calm := len(data.Cards) == 1 && gravity(card.Tone) == gravity("over"); calm || strings.EqualFold(data.Headline, card.Service+": "+card.Headline) {
			data.Cards[i].Headline = ""
		}
	}
	for i, card := range all {
		for _, st := range card.Stories {
			data.Crowd = append(data.Crowd, crowded{st, i < len(data.Cards)})
		}
	}
	if len(data.Crowd) <= fewIncidents { // all of them have a card
		data.Crowd = nil
	}
	slices.SortStableFunc(data.Crowd, func(a, b crowded) int { return gravity(a.Tone) - gravity(b.Tone) })
	data.CrowdMore = max(len(data.Crowd)-shownIncidents, 0)
	data.Crowd = data.Crowd[:len(data.Crowd)-data.CrowdMore]
	for _, v := range o.Recent {
		data.Recent = append(data.Recent, storyOf(v, o))
	}
	return s.showPage(c, http.StatusOK, "now", data)
}

const (
	// fewIncidents can be seen together, without a list of them.
	fewIncidents = 2
	// fewServices all have a card. Of more, only those where something is wrong have one,
	// and at most as many.
	fewServices = 25
	// shownIncidents and shownLines bound the lists above the cards.
	shownIncidents, shownLines = 100, 10
	// shownPlots bounds how many services a page asks Prometheus about.
	shownPlots = 12
)

// gravity orders tones: what needs a person comes first.
func gravity(tone string) int { return slices.Index([]string{"bad", "wait", "good", "over"}, tone) }

// serviceCard is one service with what is open on it.
type serviceCard struct {
	view.ServiceNow
	// Headline is "" where the page's own says it.
	Headline, Tone string
	Stories        []view.Story
	// Lost: a breach would not be heard of.
	Lost bool
	// NoWatchdog is why its watchdog is not heard, TryWatchdog what to do.
	NoWatchdog, TryWatchdog string
	Indicator               *indicator
}

// indicator is the value that a service is judged by.
type indicator struct {
	view.Broken
	// Seen: Prometheus gave the value just now.
	Seen bool
	Plot template.HTML // "" where Prometheus does not tell
}

// crowded is an incident in the list of all. Shown: its service's card is on the page.
type crowded struct {
	view.Story
	Shown bool
}

// folded are services that share one line, since nothing, or the same, is wrong with them.
type folded struct {
	Headline, Tone string
	Services       []serviceCard
}

// lines are what the folded services of a rank share, what matters most first.
var lines = []string{"an incident is open", "monitoring lost, and a rollout or a signal is active", "monitoring lost", "a rollout or a signal is active", "no open incident"}

// rank is a card's place in lines.
func (c serviceCard) rank() int {
	switch goesOn := c.GoesOn(); {
	case len(c.Stories) > 0:
		return 0
	case c.Lost && goesOn:
		return 1
	case c.Lost:
		return 2
	case goesOn:
		return 3
	}
	return 4
}

// fold leaves the cards of few services, or of those of many where something goes on. It
// orders all as they are shown.
func fold(all []serviceCard) (cards []serviceCard, rest []folded) {
	n := len(all)
	if n > fewServices {
		slices.SortStableFunc(all, func(a, b serviceCard) int { return a.rank() - b.rank() })
		for n = 0; n < fewServices && all[n].rank() < len(lines)-1; {
			n++
		}
	}
	for _, c := range all[n:] {
		headline := lines[c.rank()]
		if len(rest) == 0 || rest[len(rest)-1].Headline != headline {
			rest = append(rest, folded{Headline: headline, Tone: c.Tone})
		}
		rest[len(rest)-1].Services = append(rest[len(rest)-1].Services, c)
	}
	return all[:n], rest
}

// serviceCards are all services, the gravest first.
func serviceCards(o view.Overview) []serviceCard {
	var cards []serviceCard
	at := map[string]int{}
	for i, sv := range o.Services {
		at[sv.Service] = i
		cards = append(cards, serviceCard{ServiceNow: sv, Headline: "No open incident", Tone: "over"})
	}
	for _, v := range o.Incidents {
		i, loaded := at[v.Service]
		if !loaded { // its playbook was taken out
			i = len(cards)
			at[v.Service] = i
			cards = append(cards, serviceCard{ServiceNow: view.ServiceNow{Service: v.Service}})
		}
		cards[i].Stories = append(cards[i].Stories, storyOf(v, o))
	}
	for i := range cards {
		c := &cards[i]
		slices.SortStableFunc(c.Stories, func(a, b view.Story) int { return gravity(a.Tone) - gravity(b.Tone) })
		if len(c.Stories) > 0 {
			c.Headline, c.Tone = c.Stories[0].Headline, c.Stories[0].Tone
		}
		c.Lost, _ = o.Monitoring(c.ServiceNow)
		if c.NoWatchdog, c.TryWatchdog = o.NoWatchdog(c.ServiceNow); c.Lost && len(c.Stories) == 0 {
			c.Headline, c.Tone = "Monitoring lost", "bad"
		}
		if len(c.Unheard) > 0 && len(c.Stories) == 0 {
			c.Headline, c.Tone = "Beyond its bound, and no incident is open", "bad"
		}
	}
	slices.SortStableFunc(cards, func(a, b serviceCard) int { return gravity(a.Tone) - gravity(b.Tone) })
	return cards
}

// measure gives the first cards their indicators: that of the trigger that is firing,
// else of the playbook's first one. It does not wait long for Prometheus.
func (s *Server) measure(ctx context.Context, cards []serviceCard) {
	ctx, cancel := context.WithTimeout(ctx, plotBudget)
	defer cancel()
	type answer struct {
		card int
		plot view.Plot
		err  error
	}
	answers, asked := make(chan answer, len(cards)), 0
	for i := range cards {
		b, ok := cards[i].judgedBy()
		if !ok {
			continue
		}
		if b.Bound != "" || asked < shownPlots { // of the others nothing is known
			cards[i].Indicator = &indicator{Broken: b}
		}
		if asked < shownPlots && cards[i].Playbook != "" {
			asked++
			go func(service string) {
				p, err := s.incidents.ServicePlot(ctx, service, b.Trigger)
				answers <- answer{i, p, err}
			}(cards[i].Service)
		}
	}
	for range asked {
		select {
		case <-ctx.Done():
			return
		case a := <-answers:
			if a.err != nil {
				s.logger.Debug("no value of the indicator for the page", "service", cards[a.card].Service, "err", a.err)
				continue
			}
			cards[a.card].Indicator.show(a.plot)
		}
	}
}

// shownOnce leaves the value that the card shows out of its incidents' lists of what broke, where
// it is older. The question of an approval keeps it, with its age.
func (c serviceCard) shownOnce() {
	if c.Indicator == nil || !c.Indicator.Seen || c.Indicator.Value == "no value" {
		return
	}
	for _, st := range c.Stories {
		for i := range st.Broke {
			if b := &st.Broke[i]; b.Trigger == c.Indicator.Trigger && b.Measured() {
				b.Shown = true
			}
		}
	}
}

// judgedBy is the trigger whose value a card shows.
func (c serviceCard) judgedBy() (view.Broken, bool) {
	for _, st := range c.Stories {
		for _, b := range st.Broke {
			if b.Measured() {
				return b, true
			}
		}
	}
	for _, t := range c.Triggers {
		if !t.Signal {
			return view.Broken{Trigger: t.Name}, true
		}
	}
	return view.Broken{}, false
}

// show takes the value and the bound from a plot.
func (in *indicator) show(p view.Plot) {
	in.Broken, in.Seen = view.BrokenOf(p), true
	if len(p.Points) > 0 {
		in.Plot = report.SmallSVG(p)
	}
}
