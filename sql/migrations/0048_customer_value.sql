-- What customers are worth from now on: fits of BG/NBD and Gamma-Gamma, and what they predict of each customer.

create table analytics.value_models (
    model_id bigint generated always as identity primary key,
    as_of timestamptz not null,
    fitted_at timestamptz not null,
    horizon_days int not null,
    customers bigint not null,
    repeat_customers bigint not null,
    refusal text,
    r double precision,
    alpha_weeks double precision,
    a double precision,
    b double precision,
    log_likelihood double precision,
    value_refusal text,
    p double precision,
    q double precision,
    v double precision,
    value_log_likelihood double precision,
    correlation double precision,
    reporting_currency char(3) not null,
    check_from timestamptz,
    check_expected_orders double precision,
    check_actual_orders bigint,
    constraint a_model_has_its_parameters_or_a_refusal
        check ((refusal is null) = (num_nonnulls(r, alpha_weeks, a, b, log_likelihood) = 5)),
    constraint order_values_have_their_parameters_or_a_refusal
        check ((value_refusal is null) = (num_nonnulls(p, q, v, value_log_likelihood) = 4))
);
comment on table analytics.value_models is
    'One row per fit of the model of customer value, also of those that were refused.';
comment on column analytics.value_models.model_id is 'Number of the fit.';
comment on column analytics.value_models.as_of is 'Orders placed before this moment were looked at.';
comment on column analytics.value_models.fitted_at is 'When it was fitted.';
comment on column analytics.value_models.horizon_days is 'How far ahead was predicted, in days.';
comment on column analytics.value_models.customers is 'Contacts with orders.';
comment on column analytics.value_models.repeat_customers is 'Those who ordered on two days or more.';
comment on column analytics.value_models.refusal is 'Why nothing is predicted; null: the model is used.';
comment on column analytics.value_models.r is 'BG/NBD: shape of the gamma distribution of order rates.';
comment on column analytics.value_models.alpha_weeks is 'BG/NBD: rate of that distribution, in weeks.';
comment on column analytics.value_models.a is 'BG/NBD: of the beta distribution of leaving after an order.';
comment on column analytics.value_models.b is 'BG/NBD: of the beta distribution of leaving after an order.';
comment on column analytics.value_models.log_likelihood is 'Of the orders, at these parameters.';
comment on column analytics.value_models.value_refusal is
    'Why no money is predicted; null: Gamma-Gamma is used.';
comment on column analytics.value_models.p is 'Gamma-Gamma: shape of the values of a customer''s orders.';
comment on column analytics.value_models.q is 'Gamma-Gamma: shape of the scale among customers.';
comment on column analytics.value_models.v is 'Gamma-Gamma: rate of the scale among customers, in money.';
comment on column analytics.value_models.value_log_likelihood is 'Of the order values, at these parameters.';
comment on column analytics.value_models.correlation is
    'Between number and mean value of repeat orders; Gamma-Gamma takes it for zero.';
comment on column analytics.value_models.reporting_currency is 'Currency of v and of the predictions.';
comment on column analytics.value_models.check_from is
    'The model was also fitted to orders before this moment and compared with those until as_of.';
comment on column analytics.value_models.check_expected_orders is
    'Orders that fit expected from then until as_of; null: it was refused.';
comment on column analytics.value_models.check_actual_orders is 'Orders there were, of the same customers.';

create table analytics.predicted_value (
    contact_id bigint primary key references contacts on delete cascade,
    model_id bigint not null references analytics.value_models,
    as_of timestamptz not null,
    horizon_days int not null,
    repeat_orders bigint not null,
    alive_probability numeric(7, 6) not null,
    expected_orders numeric(12, 6) not null,
    expected_order_value numeric(18, 4),
    expected_revenue numeric(18, 4),
    reporting_currency char(3) not null,
    constraint a_probability_is_one check (alive_probability between 0 and 1)
);
comment on table analytics.predicted_value is
    'One row per customer: what is expected of each within the horizon. Empty while the model is refused.';
comment on column analytics.predicted_value.contact_id is 'The customer.';
comment on column analytics.predicted_value.model_id is 'The fit it comes from: value_models.';
comment on column analytics.predicted_value.as_of is 'The horizon begins here; orders before it were known.';
comment on column analytics.predicted_value.horizon_days is 'Length of the horizon in days.';
comment on column analytics.predicted_value.repeat_orders is
    'Days with orders after the first such day; orders of one day are one.';
comment on column analytics.predicted_value.alive_probability is
    'Chance that the contact is still a customer; 1 for who ordered once, of whom the model knows nothing.';
comment on column analytics.predicted_value.expected_orders is 'Days with orders expected in the horizon.';
comment on column analytics.predicted_value.expected_order_value is
    'Expected value of one of them in reporting_currency; null: no money is predicted.';
comment on column analytics.predicted_value.expected_revenue is
    'expected_orders x expected_order_value, not discounted.';
comment on column analytics.predicted_value.reporting_currency is 'Currency of the two.';
