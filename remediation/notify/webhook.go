package notify

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
	"github.com/locotoki/backout/remediation/view"
)

// Webhook is a channel that gets every audit entry of some kinds, in their order.
type Webhook struct {
	remediation.Channel
	Kinds []audit.Kind
}

// notifyWebhooks puts a message for each entry of a transaction, but none about a message
// that could not be delivered: two channels that refuse everything would feed each other.
func (e *Notifier) notifyWebhooks(tx remediation.Tx) error {
	if len(e.webhooks) == 0 {
		return nil
	}
	for _, en := range tx.Appended() {
		var body json.RawMessage // once one of them wants it
		for _, w := range e.webhooks {
			if !slices.Contains(w.Kinds, en.Kind) || view.Undelivered(en) {
				continue
			}
			if body == nil {
				var err error
				if body, err = json.Marshal(en); err != nil {
					return fmt.Errorf("encode audit entry %d: %w", en.Seq, err)
				}
			}
			err := tx.PutMessage(&remediation.Message{
				Channel: w.Name(), Key: "entries", Service: en.Service, Incident: en.Incident, What: fmt.Sprintf("%d-%.12s", en.Seq, en.Hash), Unrecorded: true,
				Body: body, Created: e.Now(), Next: e.Now(),
			})
			if err != nil {
				return err
			}
			tx.OnCommit(e.Outbox.WakeUp)
		}
	}
	return nil
}
