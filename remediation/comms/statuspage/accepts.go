package statuspage

import (
	"context"
	"encoding/json"

	"github.com/locotoki/backout/remediation"
)

var _ remediation.Accepter = (*Page)(nil)

// Accepts implements remediation.Accepter: the page is there, and the key may read
// it. Nothing is written.
func (p *Page) Accepts(ctx context.Context) error {
	return p.pages(ctx, "/components", func(json.RawMessage) error { return nil })
}
