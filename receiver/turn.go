package receiver

import "context"

// auditReaders is how many pages of the audit log are put together at a time: one of
// large entries takes some ten times its 4 MiB until it is encoded.
const auditReaders = 2

// turns bounds how many of something run at a time.
type turns chan struct{}

// take runs fn once there is a turn for it; it returns fn's error, or ctx's where
// that ends before.
func (t turns) take(ctx context.Context, fn func() error) error {
	select {
	case t <- struct{}{}:
		defer func() { <-t }()
		return fn()
	case <-ctx.Done():
		return ctx.Err()
	}
}
