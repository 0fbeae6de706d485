package unleash

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

var _ remediation.Permitted = (*flagOff)(nil)

// What Unleash calls the permission to turn a flag on and off, and the one that includes all.
const (
	mayTurn = "UPDATE_FEATURE_ENVIRONMENT"
	mayAll  = "ADMIN"
)

// permission is one of a user's; no project, or no environment, is any.
type permission struct {
	Permission  string `json:"permission"`
	Project     string `json:"project"`
	Environment string `json:"environment"`
}

// turns reports whether it permits to turn a flag on and off. * is any project.
func (p permission) turns(project, env string) bool {
	return (p.Permission == mayTurn || p.Permission == mayAll) &&
		slices.Contains([]string{"", "*", project}, p.Project) && slices.Contains([]string{"", "*", env}, p.Environment)
}

// Permitted implements remediation.Permitted: Unleash tells what the token's user may do.
func (a *flagOff) Permitted(ctx context.Context) remediation.Result {
	var me struct {
		Permissions []permission `json:"permissions"`
	}
	err := a.c.api.Get(ctx, "/api/admin/user", &me)
	var e *jsonhttp.Error
	switch {
	case errors.As(err, &e) && (e.Code == http.StatusForbidden || e.Code == http.StatusNotFound), err == nil && me.Permissions == nil:
		return remediation.Unknown("Unleash does not say what the token may do",
			"turn another flag of that environment off and on with the token, or sign it off")
	case err != nil:
		return remediation.ResultOf(fmt.Errorf("ask for the token's permissions: %w", err))
	case slices.ContainsFunc(me.Permissions, func(p permission) bool { return p.turns(a.at.Project, a.at.Environment) }):
		return remediation.Passed("the token may turn it on and off")
	}
	return remediation.Failed(fmt.Sprintf("the token may read %s, but not turn it off: it lacks %s", a.name(), mayTurn), try(http.StatusForbidden, ""))
}
