package lease

import (
	"time"

	"golang.org/x/sys/unix"
)

// BootTime is how long the machine has been up, including the time it was suspended.
func BootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // Linux has this clock since 2.6.39
	}
	return time.Duration(t.Nano())
}
