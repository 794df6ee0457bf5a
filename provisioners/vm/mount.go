package vm

import (
	"context"
	"fmt"

	"github.com/toast-cloud/toastdev/internal/node"
)

// mountScript formats the disk $1 unless it has a file system, and mounts it at $2, now and at every start: blkid says 2 of a
// blank disk, and something else of one that it cannot read.
const mountScript = `set -eu
[ -b "$1" ] || udevadm settle
[ -b "$1" ] || { echo "there is no disk $1" >&2; exit 1; }
type=$(blkid -p -s TYPE -o value "$1") || [ $? = 2 ]
[ -n "$type" ] || mkfs.ext4 -q -m 0 "$1"
mkdir -p "$2"
line="$1 $2 auto defaults 0 2"
if ! grep -qxF "$line" /etc/fstab; then
	echo "$line" >>/etc/fstab
	systemctl daemon-reload
fi
mountpoint -q "$2" || mount "$2"`

// Mount has a node mount a disk of its own, a device that keeps its name, at path. A blank disk is formatted.
func Mount(ctx context.Context, n node.Node, device, path string) error {
	if _, err := node.Output(ctx, n, "sh", "-c", mountScript, "mount", device, path); err != nil {
		return fmt.Errorf("mount %s at %s: %w", device, path, err)
	}
	return nil
}
