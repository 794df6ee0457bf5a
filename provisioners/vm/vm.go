// Package vm is what provisioners of virtual machines share: the seed that makes a node of a disk at its first boot, and the
// node as something that runs commands over ssh.
package vm

import (
	"archive/tar"
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Key is an environment's: its nodes' host key and the key that opens them are the same, so that a node is known before it
// is met.
type Key struct {
	Private []byte // PEM, as OpenSSH writes it
	Public  string // a line of authorized_keys
}

func (k Key) signer() (ssh.Signer, error) {
	signer, err := ssh.ParsePrivateKey(k.Private)
	if err != nil {
		return nil, fmt.Errorf("the environment's ssh key: %w", err)
	}
	return signer, nil
}

// seedSize is what a seed is a multiple of, in bytes: VirtualBox has no smaller disks.
const seedSize = 1 << 20

// Seed is a small raw disk for a node's first boot: a tar stream to be unpacked in the root, which begins with the folder
// toastdev/ so that the node's boot script knows the disk from others. It holds a secret.
func Seed(identity string, key Key) ([]byte, error) {
	if _, err := key.signer(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, entry := range []struct {
		name    string
		mode    int64
		content string
	}{
		{"toastdev/", 0o755, ""},
		{"etc/toastdev/", 0o755, ""},
		{"etc/ssh/ssh_host_ed25519_key", 0o600, string(key.Private)},
		{"root/.ssh/", 0o700, ""},
		{"root/.ssh/authorized_keys", 0o600, key.Public + "\n"},
		// Last: with it in place the boot script takes the seed for unpacked.
		{"etc/toastdev/identity", 0o644, identity},
	} {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: entry.name, Mode: entry.mode, Size: int64(len(entry.content)), Format: tar.FormatUSTAR}
		if strings.HasSuffix(entry.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("make a seed: %s: %w", entry.name, err)
		}
		if _, err := w.Write([]byte(entry.content)); err != nil {
			return nil, fmt.Errorf("make a seed: %s: %w", entry.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("make a seed: %w", err)
	}
	return append(b.Bytes(), make([]byte, (seedSize-b.Len()%seedSize)%seedSize)...), nil
}
