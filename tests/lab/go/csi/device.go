package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// A namespace's directory below its controller: nvme1n1, or nvme1c0n1 where the kernel's multipath names the disk nvme1n1.
var namespace = regexp.MustCompile(`^(nvme\d+)(?:c\d+)?(n\d+)$`)

// The disk of a volume: the one whose controller's serial is the volume's id without its dash.
func deviceOf(volume string) (string, error) {
	serial := strings.Replace(volume, "-", "", 1)
	files, err := filepath.Glob("/sys/class/nvme/*/serial")
	if err != nil {
		return "", err
	}
	for _, file := range files {
		has, err := os.ReadFile(file)
		if err != nil || strings.TrimSpace(string(has)) != serial {
			continue
		}
		entries, err := os.ReadDir(filepath.Dir(file))
		if err != nil {
			return "", err
		}
		for _, entry := range entries {
			if part := namespace.FindStringSubmatch(entry.Name()); part != nil {
				return "/dev/" + part[1] + part[2], nil
			}
		}
	}
	return "", fmt.Errorf("no NVMe controller in /sys/class/nvme has the serial %s", serial)
}

// Makes a filesystem where there is none, and leaves alone what is there, even where it is of another type.
func formatIfEmpty(device, fsType string) error {
	found, err := exec.Command("blkid", "-p", "-o", "value", "-s", "TYPE", device).Output()
	var ended *exec.ExitError
	// blkid: 2 means that it found nothing.
	if err != nil && !(errors.As(err, &ended) && ended.ExitCode() == 2) {
		return fmt.Errorf("blkid %s: %w", device, err)
	}
	if strings.TrimSpace(string(found)) != "" {
		return nil
	}
	if fsType == "ext4" {
		return run("mkfs.ext4", "-q", "-F", "-m0", device)
	}
	return run("mkfs."+fsType, "-q", device)
}

// Whether something is mounted at a path, in this mount namespace.
func mountedAt(path string) (bool, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false, err
	}
	defer file.Close()
	escape := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`)
	want := escape.Replace(filepath.Clean(path))
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && fields[4] == want {
			return true, nil
		}
	}
	return false, nil
}

// Unmounts a path and removes it. Both may have been done before: the kubelet repeats its calls.
func unmountAndRemove(path string) error {
	mounted, err := mountedAt(path)
	if err != nil {
		return err
	}
	if mounted {
		if err := run("umount", path); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func run(name string, args ...string) error {
	said, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(said)))
	}
	return nil
}
