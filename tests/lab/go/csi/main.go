// A node's CSI plugin under the name of the EBS driver: it registers with the kubelet, and stages and publishes NVMe
// volumes that carry an EBS serial. It attaches nothing: devices and VolumeAttachments are the lab's to make.
package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const driver = "ebs.csi.aws.com"

func main() {
	log.SetFlags(log.LstdFlags | log.Lmicroseconds)
	kubelet := flag.String("kubelet-dir", "/var/lib/kubelet", "the kubelet's directory")
	node := node{}
	flag.StringVar(&node.id, "instance", "i-0123456789abcdef0", "the instance, which is the node's name to the driver")
	flag.StringVar(&node.zone, "zone", "eu-central-1a", "the node's availability zone")
	flag.Int64Var(&node.limit, "max-volumes", 26, "how many volumes the node takes")
	flag.Parse()
	socket := filepath.Join(*kubelet, "plugins", driver, "csi.sock")
	registry := filepath.Join(*kubelet, "plugins_registry", driver+"-reg.sock")
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, node, socket, registry); err != nil {
		log.Fatalf("csi: %v", err)
	}
}

// The kubelet dials the plugin as soon as it sees the registry's socket, so that one comes last.
func serve(ctx context.Context, node node, socket, registry string) error {
	plugin := grpc.NewServer(grpc.UnaryInterceptor(logged))
	csi.RegisterIdentityServer(plugin, &identity{})
	csi.RegisterNodeServer(plugin, &node)
	registrar := grpc.NewServer(grpc.UnaryInterceptor(logged))
	registration.RegisterRegistrationServer(registrar, registrant{endpoint: socket})
	ended := make(chan error, 2)
	for _, s := range []struct {
		server *grpc.Server
		path   string
	}{{plugin, socket}, {registrar, registry}} {
		listener, err := listen(s.path)
		if err != nil {
			return err
		}
		defer s.server.Stop()
		go func() { ended <- s.server.Serve(listener) }()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return err
	}
}

func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return net.Listen("unix", path)
}

func logged(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	reply, err := handle(ctx, request)
	log.Printf("%s {%v}: %v", info.FullMethod, request, err)
	return reply, err
}

// What node-driver-registrar does beside a real driver.
type registrant struct {
	registration.UnimplementedRegistrationServer
	endpoint string
}

func (r registrant) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{
		Type:              registration.CSIPlugin,
		Name:              driver,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// A plugin that the kubelet refused would only look alive: it ends, as the registrar does.
func (r registrant) NotifyRegistrationStatus(_ context.Context, said *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !said.PluginRegistered {
		log.Fatalf("csi: the kubelet refused to register %s: %s", driver, said.Error)
	}
	return &registration.RegistrationStatusResponse{}, nil
}

type identity struct {
	csi.UnimplementedIdentityServer
}

func (identity) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: driver, VendorVersion: "lab"}, nil
}

func (identity) GetPluginCapabilities(context.Context, *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{{
		Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{
			Type: csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS,
		}},
	}}}, nil
}

func (identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{}, nil
}
