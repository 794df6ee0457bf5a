package vm

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/toast-cloud/toastdev/internal/project"
	"github.com/toast-cloud/toastdev/internal/record"
)

// newKey is an environment's key, of its record.
func newKey(t testing.TB) Key {
	t.Helper()
	secrets, err := (&record.Environment{Name: "test", Home: &project.Home{Dir: t.TempDir()}}).Secrets()
	if err != nil {
		t.Fatal(err)
	}
	return Key{Private: []byte(secrets["ssh_private_key"]), Public: secrets["ssh_public_key"]}
}

func TestASeedIsATarThatBeginsWithItsMarkAndFillsWholeMegabytes(t *testing.T) {
	key := newKey(t)
	seed, err := Seed("hostname ctl\n", key)
	if err != nil {
		t.Fatal(err)
	}
	if len(seed)%seedSize != 0 || !bytes.HasPrefix(seed, []byte("toastdev/\x00")) {
		t.Errorf("%d bytes that begin with %q", len(seed), seed[:16])
	}
	var got string
	r := tar.NewReader(bytes.NewReader(seed))
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got += fmt.Sprintf("%s %o %t\n", h.Name, h.Mode, h.Typeflag == tar.TypeDir)
		if want := map[string]string{"etc/toastdev/identity": "hostname ctl\n", "etc/ssh/ssh_host_ed25519_key": string(key.Private),
			"root/.ssh/authorized_keys": key.Public + "\n"}[h.Name]; string(content) != want {
			t.Errorf("%s: %q", h.Name, content)
		}
	}
	if want := "toastdev/ 755 true\netc/toastdev/ 755 true\netc/ssh/ssh_host_ed25519_key 600 false\nroot/.ssh/ 700 true\nroot/.ssh/authorized_keys 600 false\netc/toastdev/identity 644 false\n"; got != want {
		t.Errorf("entries:\n%s", got)
	}
}

func TestASeedWithoutAKeyIsRefused(t *testing.T) {
	if _, err := Seed("hostname ctl\n", Key{}); err == nil {
		t.Error("no error")
	}
}
