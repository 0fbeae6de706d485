package trust

import (
	"errors"
	"syscall"
)

// hasACL reports whether a folder has a POSIX ACL, which can let others write than its mode says. In doubt it has one.
func hasACL(path string) bool {
	_, err := syscall.Getxattr(path, "system.posix_acl_access", nil)
	return !errors.Is(err, syscall.ENODATA) && !errors.Is(err, syscall.ENOTSUP)
}
