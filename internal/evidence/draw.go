package evidence

import (
	"errors"
	"io"
)

// Draw writes one SVG that needs nothing beside itself.
func Draw(w io.Writer, region Region, panels ...Panel) error { return errors.ErrUnsupported }
