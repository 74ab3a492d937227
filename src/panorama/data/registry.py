"""Which data sets there are, where each file comes from, and what its bytes must hash to."""

from dataclasses import dataclass


class DataError(Exception):
    """A data file is damaged, or cannot be had."""


@dataclass(frozen=True)
class File:
    """One file: `sha256` and `size` (bytes) are those of the file itself, not of a gzip around it.

    `urls` are the places to download it from, the data set's own home first. An address that ends
    in .gz gives the file compressed. A file without `urls` ships with this package.
    """

    name: str
    sha256: str
    size: int
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A data set: `bundled` ships with the package, `full` are the files that have to be fetched.

    `split` says in words how it is divided into training and test data.
    """

    name: str
    title: str
    licence: str
    citation: str
    homepage: str
    split: str
    bundled: File
    full: tuple[File, ...] = ()


def _fashion_mnist(name: str, sha256: str, size: int) -> File:
    return File(
        name,
        sha256,
        size,
        (
            f"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/{name}.gz",
            f"https://storage.googleapis.com/tensorflow/tf-keras-datasets/{name}.gz",
        ),
    )


_ALL = (
    DataSet(
        name="fashion-mnist",
        title="Fashion-MNIST: photographs of clothes, 28×28 grey values, 10 classes",
        licence="MIT",
        citation=(
            "H. Xiao, K. Rasul and R. Vollgraf. Fashion-MNIST: a novel image dataset for "
            "benchmarking machine learning algorithms. arXiv:1708.07747, 2017."
        ),
        homepage="https://github.com/zalandoresearch/fashion-mnist",
        split=(
            "Its authors' own: 60,000 training and 10,000 test images. The bundled file has "
            "1,000 and 200 a class of them; smaller draws are balanced over the classes."
        ),
        bundled=File(
            "fashion_mnist_12k.npz",
            "6e2f715f8c2c93d61e29ef82127141f225432ba9ba2747e285dea431c2dee9bd",
            5_331_620,
        ),
        full=(
            _fashion_mnist(
                "train-images-idx3-ubyte",
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                47_040_016,
            ),
            _fashion_mnist(
                "train-labels-idx1-ubyte",
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                60_008,
            ),
            _fashion_mnist(
                "t10k-images-idx3-ubyte",
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                7_840_016,
            ),
            _fashion_mnist(
                "t10k-labels-idx1-ubyte",
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                10_008,
            ),
        ),
    ),
    DataSet(
        name="twemoji",
        title="Twemoji: 1,911 emoji in colour, 32×32, with names and 10 categories",
        licence="CC BY 4.0",
        citation="Twemoji graphics, copyright Twitter, Inc. and other contributors, CC BY 4.0.",
        homepage="https://github.com/jdecked/twemoji",
        split=(
            "At random by the seed. Pictures that are the same, and the women's, men's and "
            "mirrored forms of one emoji, stay on one side."
        ),
        bundled=File(
            "twemoji_32px.npz",
            "85ab6de6447c3babd36639f6a0c246b50c8bf9502b4dacb7d91fe47e37d59d9d",
            1_454_935,
        ),
    ),
    DataSet(
        name="web-rv1909-en-es",
        title="World English Bible and Reina-Valera 1909: 31,023 English–Spanish verse pairs",
        licence="public domain",
        citation="World English Bible (eBible.org); La Santa Biblia, Reina-Valera, 1909.",
        homepage="https://ebible.org",
        split="At random by the seed. Pairs that share either sentence stay on one side.",
        bundled=File(
            "web_rv1909_en_es.tsv.xz",
            "fed7fcf8166fca5b0cd450f9888e6c9372802170d2e98b4896151b107d039825",
            1_893_472,
        ),
    ),
    DataSet(
        name="vader-sentiment",
        title="VADER ground truth: 23,703 snippets and tweets with mean human ratings −4 … 4",
        licence="MIT",
        citation=(
            "C. J. Hutto and E. Gilbert. VADER: a parsimonious rule-based model for sentiment "
            "analysis of social media text. ICWSM 2014."
        ),
        homepage="https://github.com/cjhutto/vaderSentiment",
        split=(
            "At random by the seed. The same text stays on one side; snippets of one article can "
            "fall on both, because the source does not say which belong together."
        ),
        bundled=File(
            "vader_sentiment.tsv.xz",
            "7e9e11389d9b2df119923cc4c9f9c2e44a677ec53384b8f433363ad833a30fcc",
            828_756,
        ),
    ),
)

REGISTRY: dict[str, DataSet] = {dataset.name: dataset for dataset in _ALL}


def find(name: str) -> DataSet:
    """The data set of that name. Raises ValueError, with the valid names, for any other."""
    if name not in REGISTRY:
        raise ValueError(f"no data set is called {name!r}; there are: {', '.join(REGISTRY)}")
    return REGISTRY[name]
