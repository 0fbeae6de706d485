// Package chattest is Slack for tests: slack-go's own test server, with what that
// lacks (metadata, updates, history, views, faults), and a strict look at all that is
// asked of it. What Slack does not document fails the test.
package chattest

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slack-go/slack/slacktest"
)

// Who the bot is: its token, and what its messages are known by.
const (
	Token   = "xoxb-1234-hush-do-not-tell"
	BotUser = "U0BOT"
	BotID   = "B0BOT"
)

// Workspace is one at Slack. It is safe for several at once; its fields are read and
// set while nothing is asked, or inside Do.
type Workspace struct {
	t      *testing.T
	server *slacktest.Server

	mu sync.Mutex
	// Now is Slack's time.
	Now      time.Time
	Channels []*Room
	// Scopes are what the token allows.
	Scopes string
	// Requests are the methods that were called.
	Requests []string
	// away: nothing is answered.
	away bool
	// Views are those that were opened, Told what single people were told at
	// ResponseURL.
	Views []View
	Told  []string
	// answers, by the number of the request.
	answers map[int]Answer
	seq     int
}

// View is a modal that was opened.
type View struct {
	Trigger string
	Raw     json.RawMessage
}

// Room is a channel with its messages, oldest first.
type Room struct {
	ID, Name string
	Member   bool
	Messages []*Posted
}

// Posted is a message.
type Posted struct {
	TS       string          `json:"ts"`
	Thread   string          `json:"thread_ts,omitempty"`
	Type     string          `json:"type"`
	User     string          `json:"user"`
	Bot      string          `json:"bot_id,omitempty"`
	Text     string          `json:"text"`
	Blocks   json.RawMessage `json:"blocks,omitempty"`
	Metadata *Metadata       `json:"metadata,omitempty"`
	// Edits counts its updates.
	Edits int `json:"-"`
}

// Metadata are a message's.
type Metadata struct {
	Type    string            `json:"event_type"`
	Payload map[string]string `json:"event_payload"`
}

// Answer is how a request goes wrong.
type Answer struct {
	Code       int    // 0, and no Said: the connection is cut
	Said       string // an error of Slack's, with 200
	Text       string // a body that is none of Slack's
	RetryAfter string
	Location   string
	// Effect: what was asked is done nevertheless.
	Effect bool
}

// New starts a workspace, where the bot is in #incidents, which ends with the test.
func New(t *testing.T) *Workspace {
	t.Helper()
	w := &Workspace{
		t: t, Now: time.Date(2026, 11, 22, 3, 0, 0, 0, time.UTC), answers: map[int]Answer{},
		Channels: []*Room{{ID: "C0GENERAL", Name: "general"}, {ID: "C0INC", Name: "incidents", Member: true}},
		Scopes:   "chat:write,channels:read,channels:history,groups:read,groups:history",
	}
	w.server = slacktest.NewTestServer(func(c slacktest.Customize) {
		for method, serve := range map[string]func(url.Values) any{
			"auth.test": w.authTest, "users.conversations": w.conversations, "conversations.history": w.history,
			"conversations.replies": w.replies, "chat.postMessage": w.post, "chat.update": w.update,
		} {
			c.Handle("/"+method, func(rw http.ResponseWriter, r *http.Request) {
				w.serve(rw, r, method, func() any { return w.asked(r, method, serve) })
			})
		}
		c.Handle(responsePath, func(rw http.ResponseWriter, r *http.Request) {
			w.serve(rw, r, "response_url", func() any { return w.respond(r) })
		})
		c.Handle("/views.open", func(rw http.ResponseWriter, r *http.Request) {
			w.serve(rw, r, "views.open", func() any { return w.openView(r) })
		})
	})
	w.server.Start()
	t.Cleanup(w.server.Stop)
	return w
}

// URL is where the API's methods are.
func (w *Workspace) URL() string { return strings.TrimSuffix(w.server.GetAPIURL(), "/") }

// Do changes or reads the workspace while nothing else does.
func (w *Workspace) Do(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

// Incidents is the channel #incidents.
func (w *Workspace) Incidents() *Room { return w.Channels[1] }

// Mains are a channel's messages, Thread the replies to one of them.
func (r *Room) Mains() []*Posted { return r.Thread("") }

// Thread returns the replies to a message.
func (r *Room) Thread(ts string) []*Posted {
	var out []*Posted
	for _, m := range r.Messages {
		if m.Thread == ts {
			out = append(out, m)
		}
	}
	return out
}

// GoAway lets nothing be answered from now on, ComeBack everything again.
func (w *Workspace) GoAway() { w.isAway(true) }

// ComeBack ends GoAway.
func (w *Workspace) ComeBack() { w.isAway(false) }

func (w *Workspace) isAway(away bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = away
}

// Then says how the nth request from now on (the first is 1) goes wrong.
func (w *Workspace) Then(n int, a Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[len(w.Requests)+n] = a
}

func (w *Workspace) serve(rw http.ResponseWriter, r *http.Request, method string, ask func() any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.Requests = append(w.Requests, method)
	a, odd := w.answers[len(w.Requests)]
	if w.away {
		a, odd = Answer{}, true
	}
	var body any
	if !odd || a.Effect {
		body = ask()
	}
	h := rw.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	switch {
	case !odd:
		h.Set("X-OAuth-Scopes", w.Scopes)
		_ = json.NewEncoder(rw).Encode(body) // a client that is gone has no use for it
	case a.Said != "":
		_ = json.NewEncoder(rw).Encode(refusal(a.Said))
	case a.Code == 0:
		conn, _, err := rw.(http.Hijacker).Hijack()
		if err != nil {
			w.t.Error(err)
			return
		}
		_ = conn.Close() // that is the fault
	default:
		if a.RetryAfter != "" {
			h.Set("Retry-After", a.RetryAfter)
		}
		if a.Location != "" {
			h.Set("Location", a.Location)
		}
		rw.WriteHeader(a.Code)
		_, _ = io.WriteString(rw, a.Text)
	}
}

// tsForm is what Slack knows a message by.
var tsForm = regexp.MustCompile(`^[0-9]{10}\.[0-9]{6}$`)

func refusal(code string) map[string]any { return map[string]any{"ok": false, "error": code} }

// known are the arguments of each method, those with a ! are required.
var known = map[string]string{
	"auth.test":             "",
	"users.conversations":   "cursor exclude_archived limit types! team_id user",
	"conversations.history": "channel! cursor include_all_metadata inclusive latest limit oldest",
	"conversations.replies": "channel! ts! cursor include_all_metadata inclusive latest limit oldest",
	"chat.postMessage":      "channel! text! blocks! metadata! parse thread_ts unfurl_links! unfurl_media!",
	"chat.update":           "channel! ts! text! blocks! metadata! parse!",
}

func (w *Workspace) asked(r *http.Request, method string, serve func(url.Values) any) any {
	if r.Method != http.MethodPost || r.URL.RawQuery != "" {
		w.t.Errorf("%s %s: a token in a query would be logged on the way", r.Method, r.URL)
	}
	if ct, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || ct != "application/x-www-form-urlencoded" {
		w.t.Errorf("%s has the content type %q", method, r.Header.Get("Content-Type"))
	}
	if err := r.ParseForm(); err != nil {
		w.t.Error(err)
	}
	v := r.PostForm
	token := v.Get("token")
	v.Del("token")
	if bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		token = bearer
	}
	switch token {
	case "":
		return refusal("not_authed")
	case Token:
	default:
		return refusal("invalid_auth")
	}
	args := strings.Fields(known[method])
	for name, values := range v {
		if !slices.Contains(args, name) && !slices.Contains(args, name+"!") || len(values) != 1 {
			w.t.Errorf("%s does not take %s=%q", method, name, values)
		}
	}
	for _, name := range args {
		if bare, needed := strings.CutSuffix(name, "!"); needed && v.Get(bare) == "" {
			w.t.Errorf("%s needs %s", method, bare)
			return refusal("invalid_arguments")
		}
	}
	return serve(v)
}

func (w *Workspace) authTest(url.Values) any {
	return map[string]any{"ok": true, "url": "https://x.slack.com/", "team": "x", "team_id": "T0", "user": "backout", "user_id": BotUser, "bot_id": BotID}
}

// limit reads the size of a page, and where it begins.
func (w *Workspace) limit(v url.Values) (from, n int) {
	n, err := strconv.Atoi(v.Get("limit"))
	if err != nil || n < 1 || n > 999 {
		w.t.Errorf("limit=%q", v.Get("limit"))
	}
	if c := v.Get("cursor"); c != "" {
		if from, err = strconv.Atoi(strings.TrimPrefix(c, "from:")); err != nil {
			w.t.Errorf("cursor %q was never given", c)
		}
	}
	return from, n
}

// page answers a part of a list of that length.
func page(key string, items []any, from, n int) map[string]any {
	end := min(from+n, len(items))
	out := map[string]any{"ok": true, key: items[min(from, end):end], "has_more": end < len(items)}
	next := ""
	if end < len(items) {
		next = fmt.Sprint("from:", end)
	}
	out["response_metadata"] = map[string]string{"next_cursor": next}
	return out
}

func (w *Workspace) conversations(v url.Values) any {
	if v.Get("types") != "public_channel,private_channel" || v.Get("exclude_archived") != "true" {
		w.t.Errorf("users.conversations: %v", v)
	}
	items := []any{}
	for _, c := range w.Channels {
		if c.Member {
			items = append(items, map[string]any{"id": c.ID, "name": c.Name, "is_member": true})
		}
	}
	from, n := w.limit(v)
	return page("channels", items, from, n)
}

// in returns a channel that the bot is in, by its id.
func (w *Workspace) in(v url.Values) (*Room, any) {
	for _, c := range w.Channels {
		if c.ID == v.Get("channel") {
			if !c.Member {
				return nil, refusal("not_in_channel")
			}
			return c, nil
		}
	}
	return nil, refusal("channel_not_found")
}

func (w *Workspace) history(v url.Values) any {
	c, no := w.in(v)
	if no != nil {
		return no
	}
	if oldest := v.Get("oldest"); !tsForm.MatchString(oldest) {
		w.t.Errorf("oldest=%q", oldest)
	}
	items := []any{}
	for _, m := range slices.Backward(c.Messages) { // newest first
		if m.Thread == "" && m.TS > v.Get("oldest") {
			items = append(items, m.as(v))
		}
	}
	from, n := w.limit(v)
	return page("messages", items, from, n)
}

// as leaves the metadata out where they are not asked for.
func (m *Posted) as(v url.Values) Posted {
	out := *m
	if v.Get("include_all_metadata") != "1" {
		out.Metadata = nil
	}
	return out
}

func (w *Workspace) replies(v url.Values) any {
	c, no := w.in(v)
	if no != nil {
		return no
	}
	items := []any{}
	for _, m := range c.Messages {
		if m.TS == v.Get("ts") || m.Thread == v.Get("ts") {
			items = append(items, m.as(v))
		}
	}
	if len(items) == 0 {
		return refusal("thread_not_found")
	}
	from, n := w.limit(v)
	return page("messages", items, from, n)
}

func (w *Workspace) post(v url.Values) any {
	c, no := w.in(v)
	if no != nil {
		return no
	}
	if v.Get("unfurl_links") != "false" || v.Get("unfurl_media") != "false" {
		w.t.Error("links are unfurled")
	}
	m := &Posted{Thread: v.Get("thread_ts")}
	if no := w.write(v, m); no != nil {
		return no
	}
	if m.Thread != "" && !slices.ContainsFunc(c.Messages, func(p *Posted) bool { return p.TS == m.Thread && p.Thread == "" }) {
		w.t.Errorf("a reply to %s, which is no message of the channel", m.Thread)
	}
	w.Put(c, m)
	return map[string]any{"ok": true, "channel": c.ID, "ts": m.TS, "message": m}
}

// Put gives a message its place; it is the bot's where it names nobody.
func (w *Workspace) Put(c *Room, m *Posted) {
	w.seq++
	m.TS, m.Type = fmt.Sprintf("%d.%06d", w.Now.Unix(), w.seq), "message"
	if m.User == "" {
		m.User, m.Bot = BotUser, BotID
	}
	c.Messages = append(c.Messages, m)
}

func (w *Workspace) update(v url.Values) any {
	c, no := w.in(v)
	if no != nil {
		return no
	}
	if !tsForm.MatchString(v.Get("ts")) || v.Get("parse") != "none" {
		w.t.Errorf("chat.update with ts=%q and parse=%q", v.Get("ts"), v.Get("parse"))
	}
	for _, m := range c.Messages {
		if m.TS == v.Get("ts") {
			if m.User != BotUser {
				return refusal("cant_update_message")
			}
			if no := w.write(v, m); no != nil {
				return no
			}
			m.Edits++
			return map[string]any{"ok": true, "channel": c.ID, "ts": m.TS, "text": m.Text, "message": map[string]string{"text": m.Text, "user": BotUser}}
		}
	}
	return refusal("message_not_found")
}

// write takes a message's content over, where Slack would.
func (w *Workspace) write(v url.Values, m *Posted) any {
	text, blocks := v.Get("text"), v.Get("blocks")
	if size(text) > 40000 {
		return refusal("msg_too_long")
	}
	w.checkMarkup("text", text)
	if why := checkBlocks(blocks, func(s string) { w.checkMarkup("blocks", s) }); why != "" {
		w.t.Errorf("%s: %s", why, blocks)
		return refusal("invalid_blocks")
	}
	var meta Metadata
	if err := json.Unmarshal([]byte(v.Get("metadata")), &meta); err != nil || meta.Type == "" || meta.Payload == nil {
		w.t.Errorf("metadata %q: %v", v.Get("metadata"), err)
		return refusal("invalid_metadata_format")
	}
	m.Text, m.Blocks, m.Metadata = text, json.RawMessage(blocks), &meta
	return nil
}

// ours is the only markup between < and > that may be in what we post.
var ours = regexp.MustCompile(`<(!date\^[0-9]+\^[^|<>]+\|[^|<>]+|https?://(backout|meet)\.example\.com/[^|<> ]*\|[^|<>]+)>`)

// checkMarkup refuses what mentions someone, links elsewhere or is seen by nobody.
func (w *Workspace) checkMarkup(where, s string) {
	rest := ours.ReplaceAllString(s, "")
	if strings.ContainsAny(rest, "<>") {
		w.t.Errorf("%s holds markup: %q", where, s)
	}
	for _, r := range rest {
		if r != '\n' && (r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069) {
			w.t.Errorf("%s holds U+%04X", where, r)
		}
	}
}
