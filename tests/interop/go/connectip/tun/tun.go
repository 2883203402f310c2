// Package tun opens a TUN device and sets it up with the ip command.
package tun

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/sys/unix"
)

// Open makes the TUN device name. Each Read is one packet, each Write too: no offload, as in a plain loop.
func Open(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("TUNSETIFF %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), "/dev/net/tun"), nil
}

// SetUp gives the device its MTU, addresses and routes, and brings it up.
func SetUp(name string, mtu int, addresses, routes []netip.Prefix) error {
	if err := ip("link", "set", name, "mtu", strconv.Itoa(mtu), "up"); err != nil {
		return err
	}
	for _, address := range addresses {
		arguments := []string{"address", "add", address.String(), "dev", name}
		if address.Addr().Is6() {
			arguments = append(arguments, "nodad")
		}
		if err := ip(arguments...); err != nil {
			return err
		}
	}
	for _, route := range routes {
		if err := ip("route", "replace", route.String(), "dev", name); err != nil {
			return err
		}
	}
	return nil
}

func ip(arguments ...string) error {
	if output, err := exec.Command("ip", arguments...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %v: %w: %s", arguments, err, output)
	}
	return nil
}
