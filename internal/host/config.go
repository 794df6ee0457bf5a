package host

import (
	"bytes"
	"compress/gzip"
	"io"
)

// kernelConfig is what the running kernel was built with; "" where it does not say.
func (s sight) kernelConfig(kernel string) string {
	if packed := s.text("proc/config.gz"); packed != "" {
		if r, err := gzip.NewReader(bytes.NewReader([]byte(packed))); err == nil {
			if text, err := io.ReadAll(r); err == nil {
				return string(text)
			}
		}
	}
	return s.text("boot/config-" + kernel)
}
