package launchdarkly

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/jsonhttp"
)

var _ remediation.Permitted = (*flagOff)(nil)

// Permitted implements remediation.Permitted. The built-in roles say whether the token may
// change flags; what a custom role permits is unknown here.
func (a *flagOff) Permitted(ctx context.Context) remediation.Result {
	var own struct {
		ID string `json:"tokenId"`
	}
	var token struct {
		Role        string   `json:"role"`
		CustomRoles []string `json:"customRoleIds"`
		InlineRole  []any    `json:"inlineRole"`
	}
	err := a.c.api.Get(ctx, "/api/v2/caller-identity", &own)
	if err == nil && own.ID != "" {
		err = a.c.api.Get(ctx, "/api/v2/tokens/"+url.PathEscape(own.ID), &token)
	}
	var refused *jsonhttp.Error
	if err != nil && !errors.As(err, &refused) {
		return remediation.ResultOf(fmt.Errorf("ask for the token's role: %w", err))
	}
	if len(token.CustomRoles)+len(token.InlineRole) == 0 {
		switch token.Role {
		case "writer", "admin", "owner":
			return remediation.Passed("the token is a " + token.Role + "'s: it may turn the flag off")
		case "reader":
			return remediation.Failed("the token's role is reader: it may not turn the flag off", try(403, ""))
		}
	}
	return remediation.Unknown("LaunchDarkly does not say whether the token may turn the flag off",
		"check that the token's role has updateOn in environment "+a.at.Environment+", or sign it off")
}
