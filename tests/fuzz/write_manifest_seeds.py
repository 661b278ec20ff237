#!/usr/bin/env python3
"""Writes seeds/manifest: one good manifest, and one for each check of its parser.

  write_manifest_seeds.py good.json seeds/manifest

`good.json` is the manifest of any small store, as this version writes it: parsers look at the version first, so that
another one's seeds reach nothing else.
"""

import copy
import json
import pathlib
import sys


def matrix(manifest):
    """The last matrix of a unit, so that other sizes overlap nothing."""
    return next(t for t in manifest["tensors"] if t["name"].endswith("layers.0.fc2.weight"))


CHANGES = {
    "version_missing": lambda m: m.pop("format_version"),
    "version_other": lambda m: m.update(format_version=m["format_version"] - 1),
    "version_text": lambda m: m.update(format_version=str(m["format_version"])),
    "unknown_field": lambda m: m.update(comment="x"),
    "spec_missing": lambda m: m.pop("spec"),
    "spec_type": lambda m: m.update(spec=3),
    "spec_field_missing": lambda m: m["spec"].pop("ffn_dim"),
    "spec_field_unknown": lambda m: m["spec"].update(extra=1),
    "spec_family": lambda m: m["spec"].update(family="bert"),
    "spec_activation": lambda m: m["spec"].update(activation="tanh"),
    "spec_bool": lambda m: m["spec"].update(has_bias=1),
    "spec_layers": lambda m: m["spec"].update(num_layers=10**18),
    "spec_layers_large": lambda m: m["spec"].update(num_layers=4000),
    "spec_layers_unsigned": lambda m: m["spec"].update(num_layers=1 << 63),
    "spec_negative": lambda m: m["spec"].update(hidden_dim=-5),
    "spec_eps": lambda m: m["spec"].update(norm_eps=-1.0),
    "spec_eps_type": lambda m: m["spec"].update(norm_eps="small"),
    "spec_dtype": lambda m: m["spec"].update(weight_dtype="f12"),
    "spec_contradiction": lambda m: m["spec"].update(head_dim=12),
    "source_type": lambda m: m.update(source=[]),
    "tokenizer_type": lambda m: m.update(tokenizer_files="vocab.json"),
    "tokenizer_folder": lambda m: m.update(tokenizer_files=["../vocab.json"]),
    "tokenizer_twice": lambda m: m.update(tokenizer_files=["a", "a"]),
    "file_empty": lambda m: m["files"].__setitem__(0, ""),
    "file_parent": lambda m: m["files"].__setitem__(0, ".."),
    "file_manifest": lambda m: m["files"].__setitem__(0, "manifest.json"),
    "file_long": lambda m: m["files"].__setitem__(0, "x" * 300),
    "file_count": lambda m: m["files"].pop(),
    "tensors_type": lambda m: m.update(tensors={}),
    "tensors_few": lambda m: m.update(tensors=[]),
    "tensors_count": lambda m: m["tensors"].pop(),
    "tensor_type": lambda m: m["tensors"].__setitem__(2, 5),
    "tensor_unknown": lambda m: m["tensors"][2].update(note=1),
    "tensor_name": lambda m: m["tensors"][2].update(name="decoder.x"),
    "tensor_shape": lambda m: m["tensors"][2].update(shape=[1, 2, 3]),
    "tensor_shape_type": lambda m: m["tensors"][2].update(shape=["a"]),
    "tensor_format": lambda m: m["tensors"][2].update(format="dense_f12"),
    "tensor_file": lambda m: m["tensors"][2].update(file=99),
    "tensor_file_of_other_unit": lambda m: m["tensors"][2].update(file=2),
    "tensor_offset_odd": lambda m: m["tensors"][2].update(offset=4095),
    "tensor_offset_overlap": lambda m: m["tensors"][3].update(offset=0),
    "tensor_offset_huge": lambda m: m["tensors"][3].update(offset=(1 << 62)),
    "tensor_bytes": lambda m: m["tensors"][2].update(bytes=4096),
    "tensor_sparse": lambda m: matrix(m).update(format="bitmap_f16", bytes=784),
    "tensor_sparse_odd": lambda m: matrix(m).update(format="bitmap_f16", bytes=783),
    "tensor_sparse_large": lambda m: matrix(m).update(format="tiled_csl_f16", bytes=1 << 40),
    "tensor_quantised": lambda m: matrix(m).update(format="int4_g64_f16", bytes=0),
    "vector_sparse": lambda m: m["tensors"][2].update(format="bitmap_f16"),
    "tensor_checksum": lambda m: m["tensors"][2].update(checksum="00000000000000zz"),
    "tensor_zeros": lambda m: m["tensors"][2].update(zeros=1 << 40),
    "tensor_error": lambda m: m["tensors"][2].update(error=-0.5),
    "tensor_checksum_type": lambda m: m["tensors"][2].update(checksum=5),
}


def main():
    good = json.loads(pathlib.Path(sys.argv[1]).read_text())
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    dump = lambda document: json.dumps(document, separators=(",", ":")) + "\n"
    (folder / "good.json").write_text(dump(good))
    (folder / "torn.json").write_text(dump(good)[:500])
    (folder / "array.json").write_text("[]\n")
    (folder / "deep.json").write_text("[" * 2000 + "\n")
    version = b"%d" % good["format_version"]
    (folder / "not_utf8.json").write_bytes(b'{"format_version": ' + version + b', "source": "\xff\xfe"}\n')
    for name, change in CHANGES.items():
        document = copy.deepcopy(good)
        change(document)
        (folder / f"{name}.json").write_text(dump(document))


if __name__ == "__main__":
    main()
