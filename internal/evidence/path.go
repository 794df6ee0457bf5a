package evidence

import (
	"errors"
	"net/netip"
)

// Path is the way that packets took which left from one of from and were meant for one of to.
func (c *Capture) Path(from, to []netip.Addr) (*Path, error) { return nil, errors.ErrUnsupported }
