package pgserver

import (
	"archive/tar"
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/xi2/xz"
)

// unpackJar unpacks the one .txz that a jar of binaries holds into dir.
func unpackJar(jar, dir string) error {
	archive, err := zip.OpenReader(jar)
	if err != nil {
		return fmt.Errorf("open %s: %w", filepath.Base(jar), err)
	}
	defer func() { _ = archive.Close() }()
	for _, entry := range archive.File {
		if !strings.HasSuffix(entry.Name, ".txz") {
			continue
		}
		content, err := entry.Open()
		if err != nil {
			return fmt.Errorf("open %s: %w", entry.Name, err)
		}
		return errors.Join(unpackTxz(content, dir), content.Close())
	}
	return fmt.Errorf("unpack %s: it holds no .txz", filepath.Base(jar))
}

// unpackTxz writes through an os.Root, so that no name or link of the archive can lead out of dir.
func unpackTxz(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open target directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	decompressed, err := xz.NewReader(r, 0)
	if err != nil {
		return fmt.Errorf("read xz: %w", err)
	}
	entries := tar.NewReader(decompressed)
	for {
		header, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := unpackEntry(root, header, entries); err != nil {
			return fmt.Errorf("unpack %s: %w", header.Name, err)
		}
	}
}

func unpackEntry(root *os.Root, header *tar.Header, content io.Reader) error {
	name := filepath.Clean(header.Name)
	if header.Typeflag == tar.TypeDir {
		return root.MkdirAll(name, 0o755)
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(header.Linkname, name)
	case tar.TypeReg:
		// Readable and, where the archive says so, executable for everybody: the server may run as
		// another account.
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644|header.FileInfo().Mode().Perm()&0o111)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, content)
		return errors.Join(err, f.Close())
	default:
		return nil
	}
}
