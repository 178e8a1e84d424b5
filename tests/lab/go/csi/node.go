package main

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type node struct {
	csi.UnimplementedNodeServer
	id, zone string
	limit    int64
}

func (n node) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId:            n.id,
		MaxVolumesPerNode: n.limit,
		AccessibleTopology: &csi.Topology{Segments: map[string]string{
			"kubernetes.io/os":              "linux",
			"topology.ebs.csi.aws.com/zone": n.zone,
			"topology.kubernetes.io/zone":   n.zone,
		}},
	}, nil
}

func (n node) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	reply := &csi.NodeGetCapabilitiesResponse{}
	for _, can := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
	} {
		reply.Capabilities = append(reply.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: can}},
		})
	}
	return reply, nil
}

// Mounts the volume once for the node. A raw block volume is not staged, but its device must be there.
func (n node) NodeStageVolume(_ context.Context, request *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	device, err := deviceOf(request.VolumeId)
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	volume := request.VolumeCapability.GetMount()
	if volume == nil {
		return &csi.NodeStageVolumeResponse{}, nil
	}
	if err := stage(device, request.StagingTargetPath, volume); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func stage(device, path string, volume *csi.VolumeCapability_MountVolume) error {
	if err := os.MkdirAll(path, 0o750); err != nil {
		return err
	}
	if mounted, err := mountedAt(path); mounted || err != nil {
		return err
	}
	fsType, options := volume.FsType, append([]string{"defaults"}, volume.MountFlags...)
	if fsType == "" {
		fsType = "ext4"
	}
	if fsType == "xfs" {
		// Volumes made from one snapshot have one UUID.
		options = append(options, "nouuid")
	}
	if err := formatIfEmpty(device, fsType); err != nil {
		return err
	}
	return run("mount", "-t", fsType, "-o", strings.Join(options, ","), device, path)
}

func (n node) NodeUnstageVolume(_ context.Context, request *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if err := unmountAndRemove(request.StagingTargetPath); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

func (n node) NodePublishVolume(_ context.Context, request *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	var err error
	if request.VolumeCapability.GetBlock() != nil {
		err = publishDevice(request)
	} else {
		err = publishDirectory(request)
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodePublishVolumeResponse{}, nil
}

func publishDevice(request *csi.NodePublishVolumeRequest) error {
	device, err := deviceOf(request.VolumeId)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(request.TargetPath), 0o750); err != nil {
		return err
	}
	file, err := os.OpenFile(request.TargetPath, os.O_CREATE, 0o660)
	if err != nil {
		return err
	}
	file.Close()
	return bind(device, request.TargetPath, request.Readonly, nil)
}

func publishDirectory(request *csi.NodePublishVolumeRequest) error {
	if err := os.MkdirAll(request.TargetPath, 0o750); err != nil {
		return err
	}
	return bind(request.StagingTargetPath, request.TargetPath, request.Readonly, request.VolumeCapability.GetMount().GetMountFlags())
}

// The kernel takes options of a bind mount only in a second step.
func bind(source, target string, readonly bool, flags []string) error {
	if mounted, err := mountedAt(target); mounted || err != nil {
		return err
	}
	if err := run("mount", "--bind", source, target); err != nil {
		return err
	}
	options := append([]string{"remount", "bind"}, flags...)
	if readonly {
		options = append(options, "ro")
	}
	if len(options) == 2 {
		return nil
	}
	return run("mount", "-o", strings.Join(options, ","), target)
}

func (n node) NodeUnpublishVolume(_ context.Context, request *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if err := unmountAndRemove(request.TargetPath); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

func (n node) NodeGetVolumeStats(_ context.Context, request *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	about, err := os.Stat(request.VolumePath)
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	if !about.IsDir() {
		return deviceStats(request.VolumeId)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(request.VolumePath, &fs); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	block := int64(fs.Bsize)
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{
			Unit:      csi.VolumeUsage_BYTES,
			Total:     int64(fs.Blocks) * block,
			Available: int64(fs.Bavail) * block,
			Used:      int64(fs.Blocks-fs.Bfree) * block,
		},
		{
			Unit:      csi.VolumeUsage_INODES,
			Total:     int64(fs.Files),
			Available: int64(fs.Ffree),
			Used:      int64(fs.Files - fs.Ffree),
		},
	}}, nil
}

func deviceStats(volume string) (*csi.NodeGetVolumeStatsResponse, error) {
	device, err := deviceOf(volume)
	if err != nil {
		return nil, status.Error(codes.NotFound, err.Error())
	}
	sectors, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(device), "size"))
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	count, err := strconv.ParseInt(strings.TrimSpace(string(sectors)), 10, 64)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{{
		Unit:  csi.VolumeUsage_BYTES,
		Total: count * 512,
	}}}, nil
}
