// masque-proxy: masque-go's own proxy command (cmd/proxy) with what it lacks: credentials to demand, a JSON line on stdout
// that says it is ready, and an end on SIGTERM.
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
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/quic-go/masque-go"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/yosida95/uritemplate/v3"
)

func main() {
	listen := flag.String("listen", "", "`ADDR:PORT`")
	certificate := flag.String("certificate", "", "PEM `file`")
	key := flag.String("key", "", "PEM `file`")
	templateURL := flag.String("template", "", "URI `template` with target_host and target_port")
	basic := flag.String("basic", "", "demand these credentials, `USER:PASSWORD`, and answer 401 to others")
	packetSize := flag.Uint("initial-packet-size", 1350, "of QUIC, in `bytes`")
	flag.Parse()

	template := uritemplate.MustNew(*templateURL)
	location, err := url.Parse(*templateURL)
	check(err)
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	check(err)
	proxy := &masque.Proxy{}
	mux := http.NewServeMux()
	mux.HandleFunc(location.Path, func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); *basic != "" && (!ok || user+":"+password != *basic) {
			w.Header().Set("WWW-Authenticate", `Basic realm="interop"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		request, err := masque.ParseProxyRequest(r, template)
		if err != nil {
			var parseError *masque.ProxyRequestParseError
			if errors.As(err, &parseError) {
				w.WriteHeader(parseError.HTTPStatus)
			} else {
				w.WriteHeader(http.StatusBadRequest)
			}
			log.Printf("request refused: %v", err)
			return
		}
		if err := proxy.Proxy(w, request); err != nil {
			log.Printf("proxying failed: %v", err)
		}
	})
	address, err := net.ResolveUDPAddr("udp", *listen)
	check(err)
	socket, err := net.ListenUDP("udp", address)
	check(err)
	h3 := &http3.Server{
		Handler:         mux,
		EnableDatagrams: true,
		TLSConfig:       http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		QUICConfig:      &quic.Config{EnableDatagrams: true, InitialPacketSize: uint16(*packetSize)},
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		h3.Close()
	}()
	check(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"ready": "masque-proxy", "pid": os.Getpid(), "listen": *listen, "template": *templateURL,
	}))
	if err := h3.Serve(socket); !errors.Is(err, http.ErrServerClosed) {
		check(err)
	}
}

func check(err error) {
	if err != nil {
		log.Fatalf("error: %v", err)
	}
}
