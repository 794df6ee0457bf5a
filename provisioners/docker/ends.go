package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/vishvananda/netlink"

	"github.com/toast-cloud/toastdev/internal/node"
)

// endsDeadline is how long the kernel may keep the interfaces of a removed container: until it gives up the connections that
// the container's processes had closed, and whose other side is gone.
const endsDeadline = 3 * time.Minute

// hostEnds is the host's ends of the containers' interfaces on a network's bridge; none where the bridge is another host's.
func hostEnds(n network.Inspect) (ends []netlink.Link) {
	on, err := netlink.LinkByName(n.Options[bridgeName])
	if err != nil {
		return nil
	}
	links, _ := netlink.LinkList() // what is told in spite of an error is enough
	for _, l := range links {
		if l.Type() == "veth" && l.Attrs().MasterIndex == on.Attrs().Index {
			ends = append(ends, l)
		}
	}
	return ends
}

// letGo removes those ends that are on no bridge any more, and returns when they are gone. The engine cannot: in the node
// they have names of our own. Who may not remove them either waits for the kernel to.
func letGo(ctx context.Context, of string, ends []netlink.Link) error {
	return node.WaitEvery(ctx, 50*time.Millisecond, "the host's interfaces of "+of+" to go", endsDeadline, func(context.Context) (bool, error) {
		for _, end := range ends {
			link, err := netlink.LinkByIndex(end.Attrs().Index)
			if errors.As(err, new(netlink.LinkNotFoundError)) {
				continue
			}
			if err != nil {
				return false, err
			}
			if link.Attrs().MasterIndex != 0 {
				continue
			}
			err = netlink.LinkDel(link)
			return false, errors.Join(fmt.Errorf("%s is there", link.Attrs().Name), err)
		}
		return true, nil
	})
}
