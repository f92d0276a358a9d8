// Checks an exported log with the Go project's own note and tlog packages, and transparency-dev's cosignatures:
// nothing here knows our code. Arguments: folder, the log's verifier key, a witness's verifier key.
package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type tiles struct{ dir string }

func (t tiles) Height() int { return 8 }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		// This package names tiles with their height first, C2SP without.
		data, err := os.ReadFile(filepath.Join(t.dir, "tile", strings.TrimPrefix(tile.Path(), "tile/8/")))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func tree(path, origin string, verifiers ...note.Verifier) tlog.Tree {
	data, err := os.ReadFile(path)
	must(err)
	head, _, _, err := log.ParseCheckpoint(data, origin, verifiers[0], verifiers[1:]...)
	must(err)
	return tlog.Tree{N: int64(head.Size), Hash: tlog.Hash(head.Hash)}
}

func entries(dir string, size int64) [][]byte {
	var found [][]byte
	for index := int64(0); index*256 < size; index++ {
		tile := tlog.Tile{H: 8, L: -1, N: index, W: int(min(256, size-index*256))}
		name := strings.TrimPrefix(tile.Path(), "tile/8/data/")
		data, err := os.ReadFile(filepath.Join(dir, "tile", "entries", name))
		must(err)
		for len(data) > 0 {
			length := int(binary.BigEndian.Uint16(data))
			found = append(found, data[2:2+length])
			data = data[2+length:]
		}
	}
	return found
}

func main() {
	dir := os.Args[1]
	logKey, err := note.NewVerifier(os.Args[2])
	must(err)
	witness, err := fnote.NewVerifierForCosignatureV1(os.Args[3])
	must(err)
	newest := tree(filepath.Join(dir, "checkpoint"), logKey.Name(), logKey)
	reader := tlog.TileHashReader(newest, tiles{dir})
	leaves := entries(dir, newest.N)
	for at, leaf := range leaves {
		hash := tlog.RecordHash(leaf)
		proof, err := tlog.ProveRecord(newest.N, int64(at), reader)
		must(err)
		must(tlog.CheckRecord(proof, newest.N, newest.Hash, int64(at), hash))
	}
	olds, err := filepath.Glob(filepath.Join(dir, "checkpoints", "*"))
	must(err)
	for _, path := range olds {
		old := tree(path, logKey.Name(), logKey)
		proof, err := tlog.ProveTree(newest.N, old.N, reader)
		must(err)
		must(tlog.CheckTree(proof, newest.N, newest.Hash, old.N, old.Hash))
	}
	lines, err := filepath.Glob(filepath.Join(dir, "witnessed", "*", "*"))
	must(err)
	for _, path := range lines {
		line, err := os.ReadFile(path)
		must(err)
		cosigned, err := os.ReadFile(filepath.Join(dir, "checkpoints", filepath.Base(filepath.Dir(path))))
		must(err)
		opened, err := note.Open(append(cosigned, line...), note.VerifierList(logKey, witness))
		must(err)
		if len(opened.Sigs) != 2 {
			must(fmt.Errorf("%s: %d signatures", path, len(opened.Sigs)))
		}
	}
	fmt.Printf("%d leaves, %d checkpoints, %d cosignatures\n", len(leaves), len(olds), len(lines))
}
