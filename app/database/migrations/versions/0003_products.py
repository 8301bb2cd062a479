"""Products, and the images of their datasets."""

from alembic import op

from app.database.tables import product_images, products

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in (products, product_images):
        table.create(op.get_bind(), checkfirst=True)  # the first migration makes all tables of today
