package notify

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/audit"
)

// Webhook is a channel that gets every audit entry of some kinds, in their order.
type Webhook struct {
	remediation.Channel
	Kinds []audit.Kind
}

// notifyWebhooks puts a message for each entry of a transaction. What became of a
// webhook's own messages is not sent to it: a receiver that refuses everything would
// get ever more.
func (e *Notifier) notifyWebhooks(tx remediation.Tx) error {
	if len(e.webhooks) == 0 {
		return nil
	}
	for _, en := range tx.Appended() {
		for _, w := range e.webhooks {
			if !slices.Contains(w.Kinds, en.Kind) || en.Detail["channel"] == w.Name() {
				continue
			}
			body, err := json.Marshal(en)
			if err != nil {
				return fmt.Errorf("encode audit entry %d: %w", en.Seq, err)
			}
			err = tx.PutMessage(&remediation.Message{
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
