"""python tests/benchmarks/search.py: exact search among many vectors, beside the approximate indexes of two packages.

Prints JSON: milliseconds a search takes, seconds to build, and the share of the exact ten nearest that are found.
The packages are no requirements of this project: `pip install faiss-cpu usearch` to compare; what is missing is left out.

Measured on one thread of two cores that were busy otherwise, among 100,000 vectors, for 24 pictures:

| median milliseconds (fastest)         | 256 numbers | 512 numbers |
|---------------------------------------|-------------|-------------|
| this project's index, a torch product | 17 (15)     | 38 (23)     |
| exact, numpy                          | 13 (11)     | 42 (19)     |
| exact, faiss-cpu 1.15.1               | 7 (6)       | 14 (11)     |

Of 256 numbers each, a graph of faiss-cpu answers in 0.4 ms, finds 99.8 % of the nearest and takes two minutes to build;
usearch 2.26.6 took nine minutes to build its graph.

So the exact product stays (vlm/chat/index.py): it is within 50 ms, needs no building, no package and misses nothing.

--pictures N embeds N pictures with the shipped aligner, as the app does it, and prints the most memory that the process has
had after each tenth of them.

10,000 pictures, one thread: 597, 602, 602, 603, 608, 610, 613, 615, 617, 619 MB, of which the vectors are 20. When each
batch's vectors were a tensor of their own, lying between pictures that came and went, it was 602 to 1,041 MB.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

COUNT = 24
CENTRES = 1_000  # vectors lie in clusters, as those of pictures do; random ones would be unfair to the graphs

Search = Callable[[np.ndarray], Any]  # query [D] -> the places of the nearest


def clustered(count: int, dim: int, seed: int) -> np.ndarray:
    """[count, dim], float32, unit length."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((CENTRES, dim), dtype=np.float32)
    vectors = centres[draw.integers(0, CENTRES, count)] + 0.8 * draw.standard_normal(
        (count, dim), dtype=np.float32
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def with_index(vectors: np.ndarray) -> Search:
    """As the app does it."""
    from vlm.chat.index import Entry, PictureIndex

    index = PictureIndex("benchmark", vectors.shape[1])
    index.add([Entry(str(place), str(place)) for place in range(len(vectors))], torch.from_numpy(vectors))
    return lambda query: [int(found.path) for found in index.search(torch.from_numpy(query), COUNT)]


def with_numpy(vectors: np.ndarray) -> Search:
    def search(query: np.ndarray) -> np.ndarray:
        scores = vectors @ query
        best = np.argpartition(-scores, COUNT)[:COUNT]
        return best[np.argsort(-scores[best])]

    return search


def with_faiss_flat(vectors: np.ndarray) -> Search:
    import faiss

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return lambda query: index.search(query[None], COUNT)[1][0]


def with_faiss_hnsw(vectors: np.ndarray) -> Search:
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efSearch = 64
    index.add(vectors)
    return lambda query: index.search(query[None], COUNT)[1][0]


def with_usearch(vectors: np.ndarray) -> Search:
    from usearch.index import Index

    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", expansion_search=64)
    index.add(np.arange(len(vectors)), vectors, threads=torch.get_num_threads())
    return lambda query: index.search(query, COUNT).keys


WAYS = {
    "this project's index": with_index,
    "exact, numpy": with_numpy,
    "exact, faiss": with_faiss_flat,
    "graph, faiss": with_faiss_hnsw,
    "graph, usearch": with_usearch,
}


def build_all(vectors: np.ndarray, results: dict[str, dict[str, Any]]) -> dict[str, Search]:
    """Those whose package is here; notes how long each takes to build."""
    built: dict[str, Search] = {}
    for name, build in WAYS.items():
        start = time.perf_counter()
        try:
            built[name] = build(vectors)
            results[name] = {"build_s": round(time.perf_counter() - start, 1)}
        except ImportError as missing:
            results[name] = {"left out": str(missing)}
        print(f"{name}: {results[name]}", file=sys.stderr)
    return built


def measure(count: int, dim: int, queries: int) -> dict[str, dict[str, Any]]:
    """The ways take turns, so that whatever else the machine does slows all of them."""
    vectors, asked = clustered(count, dim, 1), clustered(queries, dim, 2)
    results: dict[str, dict[str, Any]] = {}
    searches = build_all(vectors, results)
    milliseconds: dict[str, list[float]] = {name: [] for name in searches}
    hits = dict.fromkeys(searches, 0)
    for query in asked:
        nearest = set(np.argsort(-(vectors @ query))[:10].tolist())
        for name, search in searches.items():
            start = time.perf_counter()
            found = search(query)
            milliseconds[name].append(1000 * (time.perf_counter() - start))
            hits[name] += len(nearest & set(map(int, found)))
    for name, times in milliseconds.items():
        results[name] |= {
            "median_ms": round(statistics.median(times), 2),
            "fastest_ms": round(min(times), 2),
            "recall_at_10": round(hits[name] / (10 * queries), 3),
        }
    return results


def measure_memory(count: int) -> dict[str, Any]:
    """Megabytes at most so far, after each tenth of the pictures, and seconds for all."""
    from vlm.chat.indexing import add_pictures
    from vlm.chat.search import load_aligner
    from vlm.inputs.images import PictureFile

    searcher, peaks = load_aligner(device="cpu"), []
    index, start = searcher.new_index(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        content = (ROOT / "assets" / "examples" / "sailboat.jpg").read_bytes()
        files = [PictureFile(Path(folder) / f"{number}.jpg", str(number)) for number in range(count)]
        for number, file in enumerate(files):
            file.path.write_bytes(
                content + number.to_bytes(4, "big")
            )  # the same to see, another to the index
        for _ in add_pictures(index, files, searcher.aligner.embed_pictures):
            if index.report.done >= (len(peaks) + 1) * count // 10:
                peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
                print(f"{index.report.done} pictures: {peaks[-1]} MB", file=sys.stderr)
    return {"pictures": len(index), "peak_mb": peaks, "seconds": round(time.perf_counter() - start)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100_000, help="vectors to search among")
    parser.add_argument("--dims", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=int, help="embed so many pictures, and nothing else")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.pictures:
        print(json.dumps(measure_memory(arguments.pictures)))
        return
    results = {
        f"{arguments.count} x {dim}": measure(arguments.count, dim, arguments.queries)
        for dim in arguments.dims
    }
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
