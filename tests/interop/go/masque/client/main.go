// masque-client: a local UDP port whose datagrams go to one target, through masque-go's client. One QUIC connection, one
// tunnel per local peer. The first tunnel is opened at once; then one JSON line on stdout says that it is ready. A refusal
// ends it with exit status 1.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

const patience = 15 * time.Second

type forwarder struct {
	proxy    *masque.ClientConn
	template *uritemplate.Template
	target   string
	basic    string
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "local `ADDR:PORT`")
	target := flag.String("target", "", "`HOST:PORT` behind the proxy")
	templateURL := flag.String("template", "", "URI `template` with target_host and target_port")
	ca := flag.String("ca", "", "trust the certificates in this PEM `file`")
	basic := flag.String("basic", "", "`USER:PASSWORD`")
	packetSize := flag.Uint("initial-packet-size", 1350, "of QUIC, in `bytes`")
	flag.Parse()

	pem, err := os.ReadFile(*ca)
	check(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	location, err := url.Parse(*templateURL)
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	connection, err := quic.DialAddr(
		ctx,
		location.Host,
		&tls.Config{RootCAs: roots, NextProtos: []string{http3.NextProtoH3}},
		&quic.Config{
			EnableDatagrams: true, InitialPacketSize: uint16(*packetSize), KeepAlivePeriod: 10 * time.Second,
		},
	)
	check(err)
	defer connection.CloseWithError(0, "")
	proxy, err := (&masque.Transport{}).NewClientConn(connection)
	check(err)
	f := &forwarder{proxy: proxy, template: uritemplate.MustNew(*templateURL), target: *target, basic: *basic}
	first, err := f.dial()
	check(err)
	address, err := net.ResolveUDPAddr("udp", *listen)
	check(err)
	local, err := net.ListenUDP("udp", address)
	check(err)
	go f.forward(local, first)
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"ready": "masque-client", "pid": os.Getpid(), "local": local.LocalAddr().String(), "target": *target,
	}))
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, os.Interrupt, syscall.SIGTERM)
	select {
	case <-stopped:
	case <-connection.Context().Done():
		check(context.Cause(connection.Context()))
	}
}

// forward moves datagrams for ever. `spare` is the tunnel of the first local peer.
func (f *forwarder) forward(local *net.UDPConn, spare *masque.Conn) {
	tunnels := map[netip.AddrPort]*masque.Conn{}
	buffer := make([]byte, 65535)
	for {
		n, peer, err := local.ReadFromUDPAddrPort(buffer)
		check(err)
		tunnel := tunnels[peer]
		if tunnel == nil {
			tunnel, spare = spare, nil
			if tunnel == nil {
				if tunnel, err = f.dial(); err != nil {
					log.Printf("no tunnel for %s: %v", peer, err)
					continue
				}
			}
			tunnels[peer] = tunnel
			go back(local, peer, tunnel)
		}
		if _, err := tunnel.WriteTo(buffer[:n], nil); err != nil {
			log.Printf("sending %d bytes failed: %v", n, err)
		}
	}
}

func back(local *net.UDPConn, peer netip.AddrPort, tunnel *masque.Conn) {
	buffer := make([]byte, 65535)
	for {
		n, _, err := tunnel.ReadFrom(buffer)
		if err != nil {
			log.Printf("the tunnel of %s ended: %v", peer, err)
			return
		}
		if _, err := local.WriteToUDPAddrPort(buffer[:n], peer); err != nil {
			log.Printf("delivering failed: %v", err)
		}
	}
}

func (f *forwarder) dial() (*masque.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	request, err := masque.NewRequest(ctx, f.template, f.target)
	if err != nil {
		return nil, err
	}
	if f.basic != "" {
		request.Header().Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(f.basic)))
	}
	tunnel, _, err := f.proxy.Dial(request)
	return tunnel, err
}

func check(err error) {
	if err != nil {
		log.Fatalf("error: %v", err)
	}
}
