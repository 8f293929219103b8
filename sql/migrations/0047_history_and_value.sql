-- Orders from files: patterns of the temporary tables in which a file waits. Predicted value of customers.

create table order_import_lines (
    line bigint not null,
    order_id text not null,
    email text,
    customer_id text,
    placed_at timestamptz,
    currency text,
    total numeric,
    discount numeric,
    shipping numeric,
    tax numeric,
    refunded numeric,
    status text,
    country text,
    item jsonb,
    amount numeric
);
comment on table order_import_lines is
    'Rows of a file of orders. Only the pattern of a temporary table: always empty.';
comment on column order_import_lines.item is 'The line of an order as an event tells it; null: the row says none.';
comment on column order_import_lines.amount is 'quantity x unit_price - discount of the line.';

create table order_import_orders (
    place bigint not null,
    order_id text not null,
    first_line bigint not null,
    row_count bigint not null,
    left_out text,
    problem text,
    email text,
    customer_id text,
    placed_at timestamptz,
    currency text,
    total numeric,
    discount numeric,
    shipping numeric,
    tax numeric,
    refunded numeric,
    country text,
    lines jsonb not null
);
comment on table order_import_orders is
    'Orders of a file, numbered as they come. Only the pattern of a temporary table: always empty.';
comment on column order_import_orders.left_out is 'Why it is not taken though nothing is wrong with it.';
comment on column order_import_orders.problem is 'What is wrong with it; its rows are rejected.';

create table order_import_problems (
    line bigint not null,
    order_id text,
    field text not null,
    problem text not null,
    advice text not null
);
comment on table order_import_problems is
    'Rows of a file of orders that are not taken. Only the pattern of a temporary table: always empty.';
