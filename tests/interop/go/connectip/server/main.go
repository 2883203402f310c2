// connectip-server: a CONNECT-IP proxy as users of connect-ip-go write it. One TUN device for all clients, a plain loop
// each way, addresses assigned and routes advertised unprompted. One JSON line on stdout says that it is ready.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	connectip "github.com/quic-go/connect-ip-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"

	"masque-connect.test/interop/connectip/tun"
)

type prefixes []netip.Prefix

func (p *prefixes) String() string { return "" }

func (p *prefixes) Set(text string) error {
	prefix, err := netip.ParsePrefix(text)
	*p = append(*p, prefix.Masked())
	return err
}

// A server hands out one address of each pool per client. The pools' second addresses are its own.
type server struct {
	device *os.File
	pools  []netip.Prefix
	routes []connectip.IPRoute

	mu      sync.Mutex
	clients map[netip.Addr]*connectip.Conn
}

func main() {
	listen := flag.String("listen", "", "`ADDR:PORT`")
	certificate := flag.String("certificate", "", "PEM `file`")
	key := flag.String("key", "", "PEM `file`")
	templateURL := flag.String("template", "", "`URL` without variables, such as https://proxy.example:4433/vpn")
	basic := flag.String("basic", "", "demand these credentials, `USER:PASSWORD`, and answer 401 to others")
	name := flag.String("tun", "connectip0", "`name` of the TUN device")
	mtu := flag.Int("mtu", 1280, "of the TUN device, in `bytes`")
	packetSize := flag.Uint("initial-packet-size", 1350, "of QUIC, in `bytes`")
	secrets := flag.String("secrets-log", "", "append TLS secrets to this `file`, for a dissector")
	var pools, routes prefixes
	flag.Var(&pools, "pool", "`prefix` to assign addresses from; once per family")
	flag.Var(&routes, "route", "`prefix` to advertise, in the order of RFC 9484; repeatable")
	flag.Parse()

	template := uritemplate.MustNew(*templateURL)
	location, err := url.Parse(*templateURL)
	check(err)
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	check(err)
	device, err := tun.Open(*name)
	check(err)
	var own []netip.Prefix
	for _, pool := range pools {
		own = append(own, netip.PrefixFrom(pool.Addr().Next(), pool.Bits()))
	}
	check(tun.SetUp(*name, *mtu, own, nil))

	s := &server{device: device, pools: pools, clients: map[netip.Addr]*connectip.Conn{}}
	for _, route := range routes {
		s.routes = append(s.routes, connectip.IPRoute{StartIP: route.Addr(), EndIP: last(route)})
	}
	go s.readDevice()

	mux := http.NewServeMux()
	mux.HandleFunc(location.Path, func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); *basic != "" && (!ok || user+":"+password != *basic) {
			w.Header().Set("WWW-Authenticate", `Basic realm="interop"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		request, err := connectip.ParseProxyRequest(r, template)
		if err != nil {
			var parseError *connectip.ProxyRequestParseError
			if errors.As(err, &parseError) {
				w.WriteHeader(parseError.HTTPStatus)
			} else {
				w.WriteHeader(http.StatusBadRequest)
			}
			log.Printf("request refused: %v", err)
			return
		}
		conn, err := (&connectip.Proxy{}).Proxy(w, request)
		if err != nil {
			log.Printf("proxying failed: %v", err)
			return
		}
		s.serve(conn)
	})
	address, err := net.ResolveUDPAddr("udp", *listen)
	check(err)
	socket, err := net.ListenUDP("udp", address)
	check(err)
	tlsConfig := &tls.Config{Certificates: []tls.Certificate{pair}}
	if *secrets != "" {
		tlsConfig.KeyLogWriter, err = os.OpenFile(*secrets, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		check(err)
	}
	h3 := &http3.Server{
		Handler:         mux,
		EnableDatagrams: true,
		TLSConfig:       http3.ConfigureTLSConfig(tlsConfig),
		QUICConfig:      &quic.Config{EnableDatagrams: true, InitialPacketSize: uint16(*packetSize)},
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		h3.Close()
	}()
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"ready": "connectip-server", "pid": os.Getpid(), "listen": *listen, "template": *templateURL,
		"tun": *name, "mtu": *mtu,
	}))
	if err := h3.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
		check(err)
	}
}

// serve is the life of one client.
func (s *server) serve(conn *connectip.Conn) {
	defer conn.Close()
	assigned, err := s.admit(conn)
	if err != nil {
		log.Print(err)
		return
	}
	defer s.dismiss(assigned)
	if err := conn.AssignAddresses(assigned); err != nil {
		log.Printf("assigning failed: %v", err)
		return
	}
	if err := conn.AdvertiseRoute(s.routes); err != nil {
		log.Printf("advertising failed: %v", err)
		return
	}
	go answerRequests(conn, assigned)
	buffer := make([]byte, 65535)
	for {
		n, err := conn.ReadPacket(buffer)
		if err != nil {
			log.Printf("client gone: %v", err)
			return
		}
		if _, err := s.device.Write(buffer[:n]); err != nil {
			log.Printf("writing to the TUN device failed: %v", err)
		}
	}
}

// readDevice moves packets to the client that their destination belongs to.
func (s *server) readDevice() {
	buffer := make([]byte, 65535)
	for {
		n, err := s.device.Read(buffer)
		check(err)
		packet := buffer[:n]
		destination, ok := destination(packet)
		if !ok {
			continue
		}
		s.mu.Lock()
		conn := s.clients[destination]
		s.mu.Unlock()
		if conn == nil {
			continue
		}
		icmp, err := conn.WritePacket(packet)
		if err != nil {
			log.Printf("sending failed: %v", err)
		}
		if len(icmp) > 0 {
			if _, err := s.device.Write(icmp); err != nil {
				log.Printf("writing to the TUN device failed: %v", err)
			}
		}
	}
}

// answerRequests grants each family's address, once, to whoever asks for it.
func answerRequests(conn *connectip.Conn, assigned []netip.Prefix) {
	for {
		request, err := conn.ReceiveAddressRequest(context.Background())
		if err != nil {
			return
		}
		rest := append([]netip.Prefix(nil), assigned...)
		granted := make([]netip.Prefix, len(request.Prefixes))
		for i, wish := range request.Prefixes {
			for j, prefix := range rest {
				if prefix.Addr().Is4() == wish.Addr().Is4() {
					granted[i] = prefix
					rest = append(rest[:j], rest[j+1:]...)
					break
				}
			}
		}
		if err := request.Respond(granted, rest); err != nil {
			log.Printf("answering an address request failed: %v", err)
			return
		}
	}
}

func (s *server) admit(conn *connectip.Conn) ([]netip.Prefix, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var assigned []netip.Prefix
	for _, pool := range s.pools {
		address := pool.Addr().Next().Next()
		for s.clients[address] != nil {
			address = address.Next()
		}
		if !pool.Contains(address) {
			return nil, errors.New("the pool is exhausted")
		}
		assigned = append(assigned, netip.PrefixFrom(address, address.BitLen()))
	}
	for _, prefix := range assigned {
		s.clients[prefix.Addr()] = conn
	}
	return assigned, nil
}

func (s *server) dismiss(assigned []netip.Prefix) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, prefix := range assigned {
		delete(s.clients, prefix.Addr())
	}
}

func destination(packet []byte) (netip.Addr, bool) {
	switch {
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return netip.AddrFromSlice(packet[16:20])
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return netip.AddrFromSlice(packet[24:40])
	}
	return netip.Addr{}, false
}

func last(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	address, _ := netip.AddrFromSlice(bytes)
	return address
}

func check(err error) {
	if err != nil {
		log.Fatalf("error: %s", strings.TrimSpace(err.Error()))
	}
}
