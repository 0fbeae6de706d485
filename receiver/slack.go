package receiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/slack-go/slack"

	"github.com/locotoki/backout/receiver/config"
	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

const (
	// maxInteraction is the largest body that Slack sends: it holds the message.
	maxInteraction = 1 << 20
	// slackAnswer is how long an answer may take us; Slack waits for 3 seconds.
	slackAnswer = 2500 * time.Millisecond
	// slackOpens is how much of that the question for a reason may take, so that time
	// is left to say that it did not open.
	slackOpens = 1500 * time.Millisecond
	// slackFresh is for how long the signature of a request holds, before and after;
	// slackSeen is how many of those that came are remembered.
	slackFresh = 5 * time.Minute
	slackSeen  = 2000
	// slackReason bounds the reason in a modal; Slack's own bound is 3000.
	slackReason = 1000
)

// The names in Slack's buttons and modals; remediation/comms/slack makes the buttons.
const (
	slackApprove  = "backout_approve"
	slackDeny     = "backout_deny"
	slackCallback = "backout_decide"
	slackBlock    = "reason"
	slackInput    = "text"
)

// slackDecision is what a button, and then the modal that it opens, is about.
type slackDecision struct {
	Verb     view.Verb `json:"verb,omitempty"`
	Incident string    `json:"incident"`
	Step     string    `json:"step"`
	Question string    `json:"question,omitempty"`
}

// interact answers POST /slack/interactions: a button of an incident's message, or
// the modal in which someone said why. Slack vouches for who it was by its signature
// over the body, so neither a token nor a CSRF token is asked for. Whatever is not
// signed is refused before it is read.
func (s *Server) interact(c echo.Context) error {
	a := s.access.Load()
	// Without tokens nothing can be changed from anywhere.
	if !a.slack.Answers() || len(a.tokens) == 0 {
		return echo.ErrNotFound
	}
	r := c.Request()
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return refuse(http.StatusUnsupportedMediaType, "Slack sends application/x-www-form-urlencoded")
	}
	v, err := slack.NewSecretsVerifier(r.Header, a.slack.SigningSecret.Reveal())
	if err != nil {
		return s.notSlack(r, err)
	}
	body, err := s.slackBodies.read(r)
	switch {
	case errors.Is(err, errTooLarge):
		return refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d KiB", maxInteraction>>10)
	case errors.Is(err, errBusy):
		return refuse(http.StatusServiceUnavailable, "too many requests at the moment: send it again")
	case err != nil:
		return refuse(http.StatusBadRequest, "the body cannot be read")
	}
	defer body.release()
	if _, err = v.Write(body.data); err == nil {
		err = v.Ensure()
	}
	if err != nil {
		return s.notSlack(r, err)
	}
	if err := s.firstFromSlack(r); err != nil {
		return err
	}
	form, err := url.ParseQuery(string(body.data))
	var in slack.InteractionCallback
	if err != nil || json.Unmarshal([]byte(form.Get("payload")), &in) != nil {
		return refuse(http.StatusBadRequest, "the payload is not valid JSON")
	}
	ctx, cancel := context.WithTimeout(r.Context(), slackAnswer)
	defer cancel()
	who := a.slack.User(in.User.ID)
	switch {
	case in.Type == slack.InteractionTypeBlockActions && len(in.ActionCallback.BlockActions) == 1:
		return s.slackButton(ctx, c, a, who, in)
	case in.Type == slack.InteractionTypeViewSubmission && in.View.CallbackID == slackCallback:
		return s.slackReasoned(ctx, c, who, in.View)
	}
	return refuse(http.StatusBadRequest, "unsupported interaction type %q", remediation.Plain(string(in.Type), 50))
}

// notSlack refuses a request that Slack did not sign, lately and for the first time.
func (s *Server) notSlack(r *http.Request, why error) error {
	s.logger.Warn("request refused: not from slack", "remote", r.RemoteAddr, "err", why)
	return refuse(http.StatusUnauthorized, "the request is not signed by Slack, is too old, or was sent before")
}

// firstFromSlack refuses a request that came before, to whichever replica: its signature
// is remembered for as long as it holds. Only those that are good come here, so nobody
// else can fill that memory.
func (s *Server) firstFromSlack(r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), slackAnswer)
	defer cancel()
	first, err := s.remembers.Once(ctx, "slack", strings.ToLower(r.Header.Get("X-Slack-Signature")), 2*slackFresh, slackSeen)
	switch {
	case err != nil: // it is signed: Slack tells who pressed the button that it failed
		s.logger.Error("cannot check if a request from slack is new", "err", err)
		return refuse(http.StatusServiceUnavailable, "backout cannot read its database now, and does not know this press: press the button again")
	case !first:
		return s.notSlack(r, errors.New("the same request was sent before"))
	}
	return nil
}

// notAllowed is what is told to those who may not answer.
const notAllowed = "You may not approve or deny steps. Ask someone who is listed under slack.users in backout's configuration."

// slackButton asks for the reason.
func (s *Server) slackButton(ctx context.Context, c echo.Context, a *access, who *config.SlackUser, in slack.InteractionCallback) error {
	pressed := in.ActionCallback.BlockActions[0]
	d := slackDecision{Verb: map[string]view.Verb{slackApprove: view.Approve, slackDeny: view.Deny}[pressed.ActionID]}
	verb := d.Verb
	if err := json.Unmarshal([]byte(pressed.Value), &d); err != nil || verb == "" || d.Incident == "" || d.Step == "" {
		return refuse(http.StatusBadRequest, "unknown button")
	}
	d.Verb = verb
	if who == nil {
		s.logger.Warn("slack user may not approve or deny", "user", remediation.Plain(in.User.ID, 50), "verb", d.Verb, "incident", remediation.Plain(d.Incident, 100), "step", remediation.Plain(d.Step, 100))
		s.answerSlack(ctx, a.slack, in.ResponseURL, notAllowed)
		return c.NoContent(http.StatusOK)
	}
	modal, err := slackModal(d)
	if err == nil {
		octx, cancel := context.WithTimeout(ctx, slackOpens)
		_, err = s.slackAPI(a.slack).OpenViewContext(octx, in.TriggerID, modal)
		cancel()
	}
	if err != nil {
		s.logger.Error("slack did not open the modal for a reason", "incident", remediation.Plain(d.Incident, 100), "err", slackWords(a.slack, err))
		s.answerSlack(ctx, a.slack, in.ResponseURL, fmt.Sprintf("Slack did not open the form for your reason. Press the button again, use the console, or run: backout %s %s %s --reason=WHY", d.Verb, d.Incident, d.Step))
	}
	return c.NoContent(http.StatusOK)
}

// slackReasoned carries out what someone decided.
func (s *Server) slackReasoned(ctx context.Context, c echo.Context, who *config.SlackUser, modal slack.View) error {
	var d slackDecision
	if err := json.Unmarshal([]byte(modal.PrivateMetadata), &d); err != nil || d.Verb != view.Approve && d.Verb != view.Deny || d.Incident == "" || d.Step == "" {
		return refuse(http.StatusBadRequest, "unknown modal")
	}
	if who == nil {
		return s.slackProblem(c, notAllowed)
	}
	text := ""
	if modal.State != nil {
		text = modal.State.Values[slackBlock][slackInput].Value
	}
	reason, err := checkReason(text)
	if err == nil {
		decided := decision{verb: d.Verb, step: d.Step}
		if d.Verb == view.Approve {
			decided.question = d.Question
		}
		_, err = s.decide(ctx, d.Incident, decided, "slack:"+who.Name, reason)
	}
	var refused *remediation.RefusedError
	var asked *echo.HTTPError
	switch {
	case errors.As(err, &refused):
		return s.slackProblem(c, withHint(refused.Message, err))
	case errors.As(err, &asked):
		return s.slackProblem(c, withHint(fmt.Sprint(asked.Message), err))
	case err != nil:
		s.logger.Error("decision from slack not carried out", "incident", remediation.Plain(d.Incident, 100), "step", remediation.Plain(d.Step, 100), "verb", d.Verb, "err", err)
		return s.slackProblem(c, "This may or may not have been done: backout got no result in time. Check the incident.")
	}
	s.write(c.Response(), http.StatusOK, slack.NewClearViewSubmissionResponse())
	return nil
}

// slackProblem shows in a modal why nothing was done.
func (s *Server) slackProblem(c echo.Context, words string) error {
	s.write(c.Response(), http.StatusOK, slack.NewErrorsViewSubmissionResponse(map[string]string{slackBlock: remediation.Plain(words, 1000)}))
	return nil
}

// slackModal asks for a reason.
func slackModal(d slackDecision) (slack.ModalViewRequest, error) {
	title, means := "Approve this step", "It runs as soon as you send this, if no other gate is closed."
	if d.Verb == view.Deny {
		title, means = "Deny this step", "It is skipped."
	}
	text := func(words string) *slack.TextBlockObject {
		return slack.NewTextBlockObject(slack.PlainTextType, words, false, false)
	}
	about := fmt.Sprintf("*%s* of *%s*. %s", slackLiteral(d.Step), slackLiteral(d.Incident), means)
	why := slack.NewPlainTextInputBlockElement(nil, slackInput)
	why.Multiline, why.MinLength, why.MaxLength = true, 1, slackReason
	private, err := json.Marshal(d)
	return slack.ModalViewRequest{
		Type: slack.VTModal, CallbackID: slackCallback, PrivateMetadata: string(private),
		Title: text(title), Submit: text(strings.Fields(title)[0]), Close: text("Cancel"),
		Blocks: slack.Blocks{BlockSet: []slack.Block{
			slack.NewSectionBlock(slack.NewTextBlockObject(slack.MarkdownType, about, false, true), nil, nil),
			slack.NewInputBlock(slackBlock, text("Why (goes into the audit log)"), nil, why),
		}},
	}, err
}

// slackLiteral shows a name in a text that Slack formats.
func slackLiteral(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "*", "∗", "~", "∼", "`", "'").Replace(remediation.Plain(s, 100))
}

// slackClient speaks to Slack for one answer; it follows nobody elsewhere.
func (s *Server) slackClient() *http.Client {
	return &http.Client{
		Transport: s.slackTransport, Timeout: slackAnswer,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (s *Server) slackAPI(cfg *config.Slack) *slack.Client {
	return slack.New(cfg.Token.Reveal(), slack.OptionAPIURL(cfg.URL+"/"), slack.OptionHTTPClient(s.slackClient()))
}

// slackWords is an error of Slack's without the token.
func slackWords(cfg *config.Slack, err error) string {
	return remediation.Plain(strings.ReplaceAll(err.Error(), cfg.Token.Reveal(), "(the token)"), 300)
}

// answerSlack tells one person something that nobody else sees. It goes to Slack
// only, whatever the request names.
func (s *Server) answerSlack(ctx context.Context, cfg *config.Slack, address, words string) {
	if !cfg.IsSlack(address) {
		s.logger.Warn("response address is not slack's; not answering")
		return
	}
	body, err := json.Marshal(map[string]any{"response_type": "ephemeral", "replace_original": false, "text": slackLiteralLong(words)})
	if err == nil {
		var req *http.Request
		if req, err = http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body)); err == nil {
			req.Header.Set("Content-Type", "application/json; charset=utf-8")
			var res *http.Response
			if res, err = s.slackClient().Do(req); err == nil {
				res.Body.Close()
				if res.StatusCode != http.StatusOK {
					err = fmt.Errorf("status %d", res.StatusCode)
				}
			}
		}
	}
	if err != nil { // the address is a secret of sorts: who has it can write there
		s.logger.Warn("answer not delivered to slack", "err", strings.ReplaceAll(err.Error(), address, "(the response address)"))
	}
}

func slackLiteralLong(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(remediation.Plain(s, 1000))
}
