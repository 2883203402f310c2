"""Foreign MASQUE programs as real processes in network namespaces, against ours.

A foreign program is a `Peer` (peer.py), one file each under peers/; what is asked of it are the features of model.py.
`scripts/interop` prints the matrix, `pytest --interop tests/interop` runs the same cells as tests. See README.md here.
"""
