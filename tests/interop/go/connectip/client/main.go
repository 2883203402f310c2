// connectip-client: a CONNECT-IP client as users of connect-ip-go write it: a TUN device and a plain loop each way. One
// JSON line on stdout says that the device has its addresses and routes. A refusal ends it with exit status 1.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"flag"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	connectip "github.com/quic-go/connect-ip-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"

	"masque-connect.test/interop/connectip/tun"
)

const patience = 15 * time.Second

func main() {
	templateURL := flag.String("template", "", "`URL` without variables, such as https://proxy.example:4433/vpn")
	ca := flag.String("ca", "", "trust the certificates in this PEM `file`")
	basic := flag.String("basic", "", "`USER:PASSWORD`")
	name := flag.String("tun", "connectip0", "`name` of the TUN device")
	mtu := flag.Int("mtu", 1280, "of the TUN device, in `bytes`")
	packetSize := flag.Uint("initial-packet-size", 1350, "of QUIC, in `bytes`")
	flag.Parse()

	pem, err := os.ReadFile(*ca)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := connectip.NewRequest(ctx, uritemplate.MustNew(*templateURL))
	check(err)
	if *basic != "" {
		credentials := base64.StdEncoding.EncodeToString([]byte(*basic))
		request.Header().Set("Authorization", "Basic "+credentials)
	}
	transport := &connectip.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, NextProtos: []string{http3.NextProtoH3}},
		QUICConfig: &quic.Config{
			EnableDatagrams: true, InitialPacketSize: uint16(*packetSize), KeepAlivePeriod: 10 * time.Second,
		},
	}
	conn, _, err := transport.Dial(request)
	check(err)
	defer conn.Close()

	assignment, err := conn.ReceiveAddressAssignment(ctx)
	check(err)
	advertised, err := conn.Routes(ctx)
	check(err)
	var addresses, routes []netip.Prefix
	for _, assigned := range assignment {
		if !assigned.Rejected() {
			addresses = append(addresses, assigned.IPPrefix)
		}
	}
	for _, route := range advertised {
		routes = append(routes, route.Prefixes()...)
	}
	device, err := tun.Open(*name)
	check(err)
	check(tun.SetUp(*name, *mtu, addresses, routes))

	failed := make(chan error, 2)
	go func() { failed <- toProxy(device, conn) }()
	go func() { failed <- toDevice(device, conn) }()
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"ready": "connectip-client", "pid": os.Getpid(), "tun": *name, "mtu": *mtu,
		"addresses": addresses, "routes": routes,
	}))
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, os.Interrupt, syscall.SIGTERM)
	select {
	case <-stopped:
	case err := <-failed:
		check(err)
	}
}

func toProxy(device *os.File, conn *connectip.Conn) error {
	buffer := make([]byte, 65535)
	for {
		n, err := device.Read(buffer)
		if err != nil {
			return err
		}
		icmp, err := conn.WritePacket(buffer[:n])
		if err != nil {
			return err
		}
		if len(icmp) > 0 {
			if _, err := device.Write(icmp); err != nil {
				return err
			}
		}
	}
}

func toDevice(device *os.File, conn *connectip.Conn) error {
	buffer := make([]byte, 65535)
	for {
		n, err := conn.ReadPacket(buffer)
		if err != nil {
			return err
		}
		if _, err := device.Write(buffer[:n]); err != nil {
			log.Printf("writing to the TUN device failed: %v", err)
		}
	}
}

func check(err error) {
	if err != nil {
		log.Fatalf("error: %v", err)
	}
}
