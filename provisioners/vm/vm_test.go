package vm

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"io"
	"testing"

	"golang.org/x/crypto/ssh"
)

// newKey is an environment's key as its record makes it.
func newKey(t *testing.T) Key {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "test")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return Key{Private: pem.EncodeToMemory(block), Public: string(bytes.TrimSpace(ssh.MarshalAuthorizedKey(key)))}
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
